"""Check a deployed endpoint from outside: one real prediction, and the metrics that bill it.

    python -m equipoise.pipeline.endpoint_check --url http://demo-serve-svc:8000 \
        --metrics-url http://demo-exporter:9464/metrics

The Helm chart's test runs this inside the cluster.
"""

from __future__ import annotations

import argparse
import http
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.errors import EquipoiseError, ServiceError
from equipoise.exporter.client import read_metric

ANSWER_TIMEOUT_S = 30.0
_POLL_S = 1.0
_TOKENS = 8
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def check_endpoint(
    url: str, metrics_url: str | None, *, text: str, key: str | None = None, timeout_s: float = 120
) -> Iterator[str]:
    """What was found, a line at a time.

    Args:
        url: base URL of the endpoint.
        metrics_url: the cost exporter's page; without one, the prediction alone is checked.
        text: what is classified, or what a language model goes on from.
        key: API key, sent as a bearer token.
        timeout_s: longest wait for the request to be counted, and then for the replicas to be billed.

    Raises:
        ServiceError: no prediction comes, the metrics cannot be read, the request is not counted, or no
            dollars of serving are billed though the exporter has a run folder to bill them in.
    """
    before = _requests(metrics_url) if metrics_url else 0.0
    model, said = _ask(url, text, key)
    yield f"{model} answers {text!r} with {said!r}"
    if metrics_url is None:
        return
    deadline = time.monotonic() + timeout_s
    while (after := _requests(metrics_url)) <= before:
        if time.monotonic() > deadline:
            raise ServiceError(
                "the prediction was not counted",
                where=metrics_url,
                value=after,
                remedy="does the exporter reach Ray's metrics pages?",
            )
        time.sleep(_POLL_S)
    yield f"requests counted: {after:g}"
    # Replicas put their lines every 20 seconds, into the run folder that the bundle lies in.
    deadline = time.monotonic() + timeout_s
    while (usd := read_metric(metrics_url, "equipoise_cost_usd_total", {"component": "serving"})) is None:
        if not read_metric(metrics_url, "equipoise_exporter_up", {"source": "config"}):
            yield "dollars billed: none, for the exporter has no run folder"
            return
        if time.monotonic() > deadline:
            raise ServiceError(
                "no dollars of serving are billed",
                where=metrics_url,
                remedy="can the replicas write to the run folder that the exporter reads?",
            )
        time.sleep(_POLL_S)
    yield f"dollars billed for serving: ${usd:.6f}"


def _requests(metrics_url: str) -> float:
    return read_metric(metrics_url, "equipoise_requests_total") or 0.0


def _ask(url: str, text: str, key: str | None) -> tuple[str, str]:
    """The model's name, and the label it gives or the text it writes."""
    answer = _call(url, "/v1/predict", {"inputs": text}, key, missing=None)
    if answer is not None:
        return str(answer["model"]), str(answer["predictions"][0]["label"])
    models = _call(url, "/v1/models", None, key)
    asked = {"model": models["data"][0]["id"], "prompt": text, "max_tokens": _TOKENS, "temperature": 0}
    answer = _call(url, "/v1/completions", asked, key)
    return str(answer["model"]), str(answer["choices"][0]["text"])


def _call(url: str, path: str, body: dict[str, Any] | None, key: str | None, **missing: Any) -> Any:
    """The JSON answer; `missing`, if given, is returned where the endpoint has no such path."""
    where = f"{url.rstrip('/')}{path}"
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(where, content, headers)  # noqa: S310
    try:
        with _direct.open(request, timeout=ANSWER_TIMEOUT_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.NOT_FOUND and missing:
                return missing["missing"]
            raise ServiceError(f"HTTP {error.code}: {_reason(error.read())}", where=where) from error
    except (OSError, ValueError) as error:
        raise ServiceError(f"no prediction: {error}", where=where) from error


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def main() -> None:
    """Parse the command line, check, and end with the error's own exit status."""
    parser = argparse.ArgumentParser(description="Check a deployed endpoint and its cost metrics.")
    parser.add_argument("--url", required=True, help="base URL of the endpoint")
    parser.add_argument("--metrics-url", help="the cost exporter's metrics page")
    parser.add_argument("--text", default="a text to classify", help="what is classified, or gone on from")
    parser.add_argument("--key-file", help="file that holds an API key")
    parser.add_argument("--timeout", type=float, default=120, help="seconds until the request is counted")
    given = parser.parse_args()
    try:
        key = Path(given.key_file).read_text(encoding="utf-8").strip() if given.key_file else None
        for line in check_endpoint(
            given.url, given.metrics_url, text=given.text, key=key, timeout_s=given.timeout
        ):
            sys.stdout.write(f"{line}\n")
    except EquipoiseError as error:
        sys.stderr.write(f"equipoise: {error}\n")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
