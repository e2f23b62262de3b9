"""The chart's Serve config on a real local Ray: without a bundle, then with one, then its metrics.

This is what KubeRay does with `serveConfigV2`: it hands it to Serve, as it is.
"""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.bundle import write_bundle
from equipoise.errors import ServiceError
from equipoise.exporter.client import read_samples
from equipoise.exporter.server import start_exporter
from equipoise.pipeline.endpoint_check import check_endpoint
from equipoise.tasks.text_classification import TextClassification

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on:DeprecationWarning")

CHART = Path(__file__).resolve().parents[2] / "charts" / "equipoise"
Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[dict[str, Any]]:
    """Ray and Serve's front on free ports of loopback."""
    from equipoise.ray_runtime import free_port, start_ray, stop_ray

    started = start_ray()
    from ray import serve

    try:
        port = free_port()
        serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": port})
        yield {"url": f"http://127.0.0.1:{port}", "metrics_url": started["metrics_url"]}
    finally:
        # Serve keeps its controller's handle, and would take it for that of the next Ray's.
        serve.shutdown()
        stop_ray()


def deploy(config: Manifest) -> None:
    """Hand a Serve config over as Serve's REST API does, and wait until its application runs."""
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    # The front is up already, on ports of this test's own.
    own = {key: value for key, value in config.items() if key not in ("http_options", "proxy_location")}
    ServeDeploySchema.model_validate(config)
    _get_global_client().deploy_apps(ServeDeploySchema.model_validate(own))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        application = serve.status().applications.get("equipoise")
        if application is not None and application.status in ("RUNNING", "DEPLOY_FAILED"):
            assert application.status == "RUNNING", application
            return
        time.sleep(0.3)
    pytest.fail("the application did not come up within 120 s")


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def wait_for(url: str, status: int) -> None:
    """The front learns of a new application a moment after Serve calls it running."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if get(url)[0] == status:
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.2)
    pytest.fail(f"{url} does not answer {status}")


def metric_names(text: str) -> set[str]:
    """Names of Equipoise's and Ray's own metrics in a PromQL expression; recorded ones have a colon."""
    return set(re.findall(r"(?<![\w:])(?:ray_)?(?:equipoise|serve|node)_[a-z0-9_]+(?![\w:])", text)) | set(
        re.findall(r"\bray_[a-z0-9_]+\b", text)
    )


def expressions() -> list[str]:
    rules = yaml.safe_load((CHART / "rules" / "equipoise.yaml").read_text(encoding="utf-8"))
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for path in (CHART / "dashboards").glob("*.json"):
        board = json.loads(path.read_text(encoding="utf-8"))
        found += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return found


def test_the_service_waits_for_its_bundle_then_serves_it_and_is_metered(
    local_ray: dict[str, Any],
    render: Callable[..., list[Manifest]],
    serve_config: Callable[[list[Manifest]], Manifest],
    find: Callable[..., Manifest],
    tiny_task: TextClassification,
    tiny_classifier: Path,
    run_config: Callable[..., Any],
    tmp_path: Path,
) -> None:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    url = local_ray["url"]
    deploy(serve_config(render("default")))
    wait_for(f"{url}/healthz", 200)
    status, body = get(f"{url}/readyz")
    assert (status, body["error"]["code"]) == (503, "no_bundle")
    with pytest.raises(ServiceError, match="no bundle is served yet"):
        list(check_endpoint(url, None, text="where is my parcel"))

    run = tmp_path / "run"
    write_bundle(
        run / "bundle",
        name="tiny",
        task=tiny_task,
        engine="torch",
        precision="fp32",
        model_folder=tiny_classifier,
        candidate={},
    )
    (run / "config.json").write_text(run_config().model_dump_json(), encoding="utf-8")
    # Through the chart, as a user would set it; the release's own key file stands where a test may write.
    objects = render("kind", [f'serving.bundle="{run}/bundle"'])
    secret = find(objects, "Secret", "api-keys")["data"]
    keys = tmp_path / "keys.json"
    keys.write_bytes(base64.b64decode(secret["keys.json"]))
    config = serve_config(objects)
    config["applications"][0]["args"]["serving"]["api_keys"] = str(keys)
    deploy(config)
    wait_for(f"{url}/readyz", 200)
    with pytest.raises(ServiceError, match="HTTP 401: send a known API key"):
        list(check_endpoint(url, None, text="where is my parcel", key="eqp_guessed"))

    exporter = start_exporter(str(run), ray_metrics_url=f"dns+{local_ray['metrics_url']}", port=0)
    try:
        key = base64.b64decode(secret["key"]).decode()
        said = list(check_endpoint(url, exporter.url, text="where is my parcel", key=key, timeout_s=60))
        assert said[0].startswith("tiny answers 'where is my parcel' with ")
        assert said[1] == "requests counted: 2"
        # The replica's own line, out of the run's ledger.
        assert said[2].startswith("dollars billed for serving: $0.")

        asked = set().union(*map(metric_names, expressions()))
        assert len(asked) > 8
        # Gauges of nodes and GPUs come from the dashboard's agent, which is not here: by Ray's own list.
        known = {f"ray_{name}" for name in METRICS_GAUGES}
        deadline = time.monotonic() + 60
        # Not every read finds the health of replicas, which Serve reports when it checks them.
        while not asked <= known and time.monotonic() < deadline:
            known |= {sample.name for sample in read_samples(local_ray["metrics_url"], "ray_")}
            known |= {sample.name for sample in read_samples(exporter.url, "equipoise_")}
            time.sleep(1)
    finally:
        exporter.stop()
    assert asked - known == set()
