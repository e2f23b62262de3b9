"""The endpoint on a real local Ray: a tiny BERT in torch and in OpenVINO, over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from equipoise.bundle import Bundle, open_bundle, write_bundle
from equipoise.config.serving import ServingConfig
from equipoise.engines import Predictor, open_engine
from equipoise.errors import BundleError, ServiceError
from equipoise.exporter.client import read_metric
from equipoise.exporter.server import start_exporter
from equipoise.ray_runtime import free_port, start_ray, stop_ray
from equipoise_serving import endpoint
from equipoise_serving.load_client import replay

# Warnings of other packages about each other, at their own import.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on:DeprecationWarning"),
]

TEXTS = [
    f"{verb} {thing} number {number}"
    for number in range(5)
    for verb in ("where is", "please stop", "how much for", "tell me about", "cancel")
    for thing in ("my card", "the storm in Zürich")
]
MAX_BODY_BYTES = 4096


@pytest.fixture(scope="module")
def ray_metrics_url() -> Iterator[str]:
    runtime = start_ray()
    try:
        yield runtime["metrics_url"]
        endpoint.shutdown()
    finally:
        stop_ray()


@pytest.fixture(scope="module")
def serving(ray_metrics_url: str) -> ServingConfig:
    del ray_metrics_url
    return ServingConfig(port=free_port(), max_body_bytes=MAX_BODY_BYTES, max_batch_size=8)


@pytest.fixture(scope="module")
def base_url(bundles: dict[str, Bundle], serving: ServingConfig) -> str:
    """The OpenVINO bundle, served."""
    return endpoint.deploy(bundles["openvino"].folder, serving, model_name="tiny")


def call(url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of one request: POST where there is a body, else GET."""
    host, _, path = url.removeprefix("http://").partition("/")
    with closing(http.client.HTTPConnection(host, timeout=20)) as connection:
        method = "GET" if body is None else "POST"
        connection.request(method, f"/{path}", body, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        content = response.read()
        is_json = response.headers["content-type"] == "application/json"
        return response.status, json.loads(content) if is_json else content.decode()


def local_predictor(bundle: Bundle) -> Predictor:
    manifest = bundle.manifest
    return Predictor(
        bundle.load_task(), open_engine(manifest.engine, bundle.model_folder, manifest.precision, threads=1)
    )


def wait_for(check: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.25)
    return check()


def test_health_and_metadata_routes_answer(base_url: str) -> None:
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready"):
        assert call(base_url + path)[0] == 200, path
    assert call(f"{base_url}/v2")[1]["name"] == "equipoise"
    metadata = call(f"{base_url}/v2/models/tiny")[1]
    assert metadata["name"] == "tiny"
    assert metadata["platform"] == "equipoise_openvino"
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["label", "score"]


def test_predict_answers_like_the_predictor_in_process(base_url: str, bundles: dict[str, Bundle]) -> None:
    texts = [TEXTS[0], TEXTS[7], "", "é" * 500]
    expected = local_predictor(bundles["openvino"]).predict(texts)
    status, answer = call(f"{base_url}/v1/predict", json.dumps({"inputs": texts}).encode())
    assert status == 200
    assert answer["model"] == "tiny"
    assert [row["label"] for row in answer["predictions"]] == [row["label"] for row in expected]
    for served, local in zip(answer["predictions"], expected, strict=True):
        assert served["scores"] == pytest.approx(local["scores"], abs=1e-4)
        assert served["score"] == max(served["scores"].values())
    for form in ({"inputs": texts[0]}, {"text": texts[0]}):
        single = call(f"{base_url}/v1/predict", json.dumps(form).encode())[1]
        assert [row["label"] for row in single["predictions"]] == [expected[0]["label"]]


def test_inference_protocol_gives_labels_and_scores(base_url: str, bundles: dict[str, Bundle]) -> None:
    expected = local_predictor(bundles["openvino"]).predict(TEXTS[:3])
    tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS[:3]}
    status, answer = call(
        f"{base_url}/v2/models/tiny/infer", json.dumps({"id": "7", "inputs": [tensor]}).encode()
    )
    assert status == 200
    assert (answer["model_name"], answer["id"]) == ("tiny", "7")
    labels, scores = answer["outputs"]
    assert labels == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [3],
        "data": [row["label"] for row in expected],
    }
    assert scores["data"] == pytest.approx([row["score"] for row in expected], abs=1e-4)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/v1/predict", b"{", {}, 400, "invalid_json"),
        ("/v1/predict", b'{"inputs": NaN}', {}, 400, "invalid_json"),
        ("/v1/predict", b'{"inputs": "\xff"}', {}, 400, "invalid_encoding"),
        ("/v1/predict", b'{"inputs": "\\ud800"}', {}, 400, "invalid_text"),
        ("/v1/predict", b"[" * 4000, {}, 400, "invalid_json"),
        ("/v1/predict", b'{"inputs": 5}', {}, 400, "invalid_request"),
        ("/v1/predict", b'{"inputs": []}', {}, 400, "invalid_request"),
        ("/v1/predict", b"", {}, 400, "invalid_json"),
        ("/v1/predict", b'{"inputs": "%s"}' % (b"a" * MAX_BODY_BYTES), {}, 413, "body_too_large"),
        ("/v1/predict", b"text=a", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ("/v1/predict", None, {}, 405, "method_not_allowed"),
        ("/healthz", b"{}", {}, 405, "method_not_allowed"),
        ("/nowhere", None, {}, 404, "not_found"),
        ("/v2/models/other/infer", b"{}", {}, 404, "model_not_found"),
        ("/v2/models/tiny/infer", b"{}", {}, 400, "invalid_request"),
    ],
)
def test_bad_requests_get_a_stable_code_and_leave_the_replica_alive(
    base_url: str, path: str, body: bytes | None, headers: dict[str, str], status: int, code: str
) -> None:
    found, answer = call(base_url + path, body, **headers)
    assert (found, answer["error"]["code"]) == (status, code)
    assert "Traceback" not in json.dumps(answer)
    assert call(f"{base_url}/v1/predict", b'{"text": "still here"}')[0] == 200


def test_chunked_body_over_the_limit_is_refused(base_url: str) -> None:
    host, port = base_url.removeprefix("http://").split(":")
    head = (
        "POST /v1/predict HTTP/1.1\r\nhost: tiny\r\ncontent-type: application/json\r\n"
        "transfer-encoding: chunked\r\n\r\n"
    )
    chunks = (b"400\r\n" + b"a" * 1024 + b"\r\n") * 8 + b"0\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        # At once: a client that still writes when it is refused may find the connection closed.
        connection.sendall(head.encode() + chunks)
        response = http.client.HTTPResponse(connection)
        response.begin()
        with response:
            assert response.status == 413
            assert json.loads(response.read())["error"]["code"] == "body_too_large"


def test_rows_beyond_what_may_wait_are_answered_at_once(base_url: str) -> None:
    body = json.dumps({"inputs": [""] * 1000}, separators=(",", ":")).encode()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: call(f"{base_url}/v1/predict", body), range(6)))
    codes = [answer["error"]["code"] for status, answer in answers if status == 429]
    assert codes
    assert set(codes) == {"overloaded"}
    assert [len(answer["predictions"]) for status, answer in answers if status == 200] == [1000] * (
        6 - len(codes)
    )


def test_replay_keeps_order_and_meters_every_request(
    base_url: str,
    bundles: dict[str, Bundle],
    ray_metrics_url: str,
    tmp_path: Path,
) -> None:
    ok = {"model": "tiny", "status": "200"}

    def requests() -> float:
        return read_metric(ray_metrics_url, "ray_equipoise_requests_total", ok) or 0.0

    call(f"{base_url}/v1/predict", b'{"text": "the first is counted"}')
    assert wait_for(lambda: requests() > 0)
    time.sleep(2)
    before = requests()
    progress: list[int] = []
    result = replay(base_url, TEXTS, connections=8, timeout_s=20, on_progress=progress.append)
    expected = [row["label"] for row in local_predictor(bundles["openvino"]).predict(TEXTS)]
    assert len(set(expected)) > 1
    assert result.labels == expected
    assert result.failures == 0
    assert progress == list(range(1, len(TEXTS) + 1))
    assert 0 < result.p50_ms <= result.p99_ms < 20_000
    assert result.rps > 0

    assert wait_for(lambda: requests() == before + len(TEXTS))
    busy = read_metric(ray_metrics_url, "ray_equipoise_busy_seconds_total", {"model": "tiny"})
    assert busy is not None
    assert busy > 0
    # And the endpoint's own page, under the exporter's names.
    page = f"{base_url}/metrics"
    assert read_metric(page, "equipoise_requests_total", ok) == before + len(TEXTS)
    assert (read_metric(page, "equipoise_rows_total", {"model": "tiny"}) or 0) >= len(TEXTS)
    exporter = start_exporter(str(tmp_path), ray_metrics_url=ray_metrics_url, port=0)
    assert read_metric(exporter.url, "equipoise_requests_total", ok) == before + len(TEXTS)
    assert read_metric(exporter.url, "equipoise_exporter_up", {"source": "ray"}) == 1
    exporter.stop()


def test_front_and_replica_listen_on_loopback_only(base_url: str, serving: ServingConfig) -> None:
    del base_url
    session = psutil.Process(os.getpid()).children(recursive=True)
    listening = [c.laddr for p in session for c in _listeners(p)]
    front = [address for address in listening if address.port == serving.port]
    replicas = [address for address in listening if 30000 <= address.port <= 31000]
    assert front
    assert replicas
    assert {address.ip for address in front + replicas} == {"127.0.0.1"}


def _listeners(process: psutil.Process) -> list[Any]:
    try:
        return [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return []


def test_replica_of_an_openvino_bundle_loads_no_torch(base_url: str) -> None:
    del base_url
    maps = [
        Path(f"/proc/{process.pid}/maps").read_text()
        for process in psutil.Process(os.getpid()).children(recursive=True)
        if "ServeReplica" in " ".join(process.cmdline())
    ]
    assert maps
    assert all("libopenvino" in text for text in maps)
    assert not any("libtorch" in text for text in maps)


def test_port_in_use_is_named(bundles: dict[str, Bundle], serving: ServingConfig, base_url: str) -> None:
    del base_url
    other = serving.model_copy(update={"port": free_port()})
    with pytest.raises(ServiceError, match="already runs on another port, with equipoise"):
        endpoint.deploy(bundles["torch"].folder, other, model_name="tiny")


def test_a_run_sees_what_its_own_test_would_get_in_the_way_of(base_url: str) -> None:
    del base_url
    with pytest.raises(ServiceError, match=r"the cluster serves equipoise on the path"):
        endpoint.check_vacant("run-test")
    # What a killed try of its own left does not count.
    endpoint.check_vacant("equipoise")


def test_tampered_bundle_is_refused_before_anything_stops(
    bundles: dict[str, Bundle], serving: ServingConfig, base_url: str
) -> None:
    folder = bundles["torch"].folder
    file = folder / "tokenizer.json"
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    with pytest.raises(BundleError, match=r"tokenizer.json was changed"):
        endpoint.deploy(folder, serving, model_name="tiny")
    file.write_bytes(content)
    assert call(f"{base_url}/v1/predict", b'{"text": "still here"}')[0] == 200


def test_second_application_cannot_take_the_same_route(
    bundles: dict[str, Bundle], serving: ServingConfig, base_url: str
) -> None:
    with pytest.raises(ServiceError, match=r"being used by application \"equipoise\""):
        endpoint.deploy(bundles["torch"].folder, serving, model_name="other", app_name="other")
    assert call(f"{base_url}/v1/predict", b'{"text": "still here"}')[0] == 200


def test_torch_bundle_replaces_the_served_one(
    bundles: dict[str, Bundle], serving: ServingConfig, base_url: str
) -> None:
    assert endpoint.deploy(bundles["torch"].folder, serving, model_name="teacher") == base_url
    result = replay(base_url, TEXTS[:10], connections=2, timeout_s=20)
    expected = local_predictor(open_bundle(bundles["torch"].folder)).predict(TEXTS[:10])
    assert result.labels == [row["label"] for row in expected]
    assert call(f"{base_url}/v2/models/tiny")[0] == 404


def test_model_that_cannot_be_loaded_gives_one_line_and_the_old_one_stays(
    bundles: dict[str, Bundle], serving: ServingConfig, base_url: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "model.xml").write_text("no model")
    broken = write_bundle(
        tmp_path / "broken",
        name="broken",
        task=bundles["torch"].load_task(),
        engine="openvino",
        precision="fp32",
        model_folder=tmp_path / "empty",
        candidate={},
    )
    with pytest.raises(ServiceError, match="openvino cannot load the model") as caught:
        endpoint.deploy(broken.folder, serving, model_name="broken")
    assert "\n" not in str(caught.value)
    assert "the bundle before it is served still" in str(caught.value)
    assert call(f"{base_url}/v2/models/teacher")[0] == 200
