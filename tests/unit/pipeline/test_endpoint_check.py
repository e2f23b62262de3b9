"""The check of a deployed endpoint, against real HTTP servers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from equipoise.errors import ServiceError
from equipoise.pipeline.endpoint_check import check_endpoint


class Endpoint(BaseHTTPRequestHandler):
    """Answers a prediction, or what `reply` says, and counts it."""

    reply: tuple[int, bytes] | None = None
    requests: Any = None
    seen: str | None = None

    def do_POST(self) -> None:
        inputs = json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"]
        type(self).seen = self.headers.get("authorization")
        answer = {"model": "tiny", "predictions": [{"label": inputs.split()[0]}]}
        status, body = self.reply or (200, json.dumps(answer).encode())
        if status == 200 and self.requests is not None:
            self.requests.inc()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def endpoint() -> Iterator[tuple[str, type[Endpoint]]]:
    handler = type("Handler", (Endpoint,), {})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def metrics() -> Iterator[tuple[str, Counter, Counter, Gauge]]:
    """An exporter's page, its requests, its dollars and which of its sources are up."""
    registry = CollectorRegistry()
    requests = Counter("equipoise_requests", "-", registry=registry)
    dollars = Counter("equipoise_cost_usd", "-", ["run", "component"], registry=registry)
    up = Gauge("equipoise_exporter_up", "-", ["source"], registry=registry)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    yield f"http://127.0.0.1:{server.server_port}/metrics", requests, dollars, up
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_prediction_is_made_and_found_in_the_metrics(endpoint: Any, metrics: Any) -> None:
    url, handler = endpoint
    page, handler.requests, dollars, up = metrics
    up.labels("config").set(1)
    dollars.labels("demo", "training").inc(3)
    # A replica puts its line a while after the answer.
    billed = threading.Timer(1.5, lambda: dollars.labels("demo", "serving").inc(0.5))
    billed.start()
    assert list(check_endpoint(url, page, text="hello there", key="k3y")) == [
        "tiny answers 'hello there' with 'hello'",
        "requests counted: 1",
        "dollars billed for serving: $0.500000",
    ]
    billed.join()
    assert handler.seen == "Bearer k3y"


def test_replicas_that_nobody_bills_are_a_fault(endpoint: Any, metrics: Any) -> None:
    url, handler = endpoint
    page, handler.requests, dollars, up = metrics
    up.labels("config").set(1)
    dollars.labels("demo", "training").inc(3)
    with pytest.raises(ServiceError, match=r"no dollars of serving .*write to the run folder"):
        list(check_endpoint(url, page, text="hello", timeout_s=0.1))


def test_a_bundle_without_a_run_folder_is_not_billed_and_that_is_said(endpoint: Any, metrics: Any) -> None:
    url, handler = endpoint
    page, handler.requests, _, up = metrics
    up.labels("config").set(0)
    found = list(check_endpoint(url, page, text="hello", timeout_s=0.1))
    assert found[1:] == ["requests counted: 1", "dollars billed: none, for the exporter has no run folder"]


def test_a_request_that_nobody_counts_is_a_fault(endpoint: Any, metrics: Any) -> None:
    with pytest.raises(ServiceError, match="was not counted"):
        list(check_endpoint(endpoint[0], metrics[0], text="hello", timeout_s=0.1))


def test_the_endpoints_own_reason_reaches_the_reader(endpoint: Any) -> None:
    url, handler = endpoint
    handler.reply = (503, b'{"error": {"code": "no_bundle", "message": "no bundle is served yet"}}')
    with pytest.raises(ServiceError, match=r"/v1/predict: HTTP 503: no bundle is served yet$"):
        list(check_endpoint(url, None, text="hello"))


@pytest.mark.parametrize("reply", [(200, b"not json"), (502, b"<html>")])
def test_what_is_no_answer_is_one_line(endpoint: Any, reply: tuple[int, bytes]) -> None:
    url, handler = endpoint
    handler.reply = reply
    with pytest.raises(ServiceError):
        list(check_endpoint(url, None, text="hello"))


def test_the_command_ends_with_the_errors_status() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "equipoise.pipeline.endpoint_check", "--url", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 6
    assert ended.stderr.startswith("equipoise: http://127.0.0.1:9/v1/predict: no prediction")
    assert ended.stdout == ""
