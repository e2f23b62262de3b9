"""Two replicas on a real local Ray under load: keys, hostile clients, a killed replica, new bundles."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from equipoise.bundle import Bundle, write_bundle
from equipoise.config import RunConfig
from equipoise.config.serving import ServingConfig
from equipoise.costs.capacity import flat_capacity
from equipoise.costs.ledger import read_ledger
from equipoise.errors import ConfigError, ServiceError
from equipoise.ray_runtime import free_port, start_ray, stop_ray
from equipoise.runs import RunFolder
from equipoise_serving import endpoint
from equipoise_serving.api_keys import create_key, revoke_key
from equipoise_serving.replica_ledger import ReplicaLedger

# Minutes of load; one replica's faults and limits are in test_serving.py.
pytestmark = [
    pytest.mark.slow,
    # Serve deprecates the field in favour of variables that it does not read yet.
    pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning"),
]

TIMEOUT_S = 2.0
MAX_BODY_BYTES = 4096
BODIES = [b'{"text": "a"}', b'{"inputs": ["a", "b"]}', b'{"inputs": []}', b'{"text": "c"}']


@dataclass
class Endpoint:
    """A served bundle and a key to it."""

    config: ServingConfig
    url: str
    key: str
    keys_file: Path
    log_folder: Path

    def send(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers of one request: POST where there is a body, else GET."""
        given = {"content-type": "application/json", "authorization": f"Bearer {self.key}"} | headers
        with closing(http.client.HTTPConnection("127.0.0.1", self.config.port, timeout=20)) as connection:
            connection.request("GET" if body is None else "POST", path, body, given)
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers["content-type"] == "application/json"
            return (
                response.status,
                json.loads(content) if is_json else content.decode(),
                dict(response.headers),
            )

    def predict(self) -> int:
        return self.send("/v1/predict", b'{"text": "still here"}')[0]

    def raw(self, content: bytes, wait_s: float) -> bytes:
        """What comes back for some bytes on a fresh connection, until it is closed or the time is over."""
        with socket.create_connection(("127.0.0.1", self.config.port), timeout=wait_s) as connection:
            connection.sendall(content)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while part := connection.recv(65536):
                    received += part
            return received


@dataclass
class Load:
    """Clients that ask on kept-alive connections until they are stopped."""

    target: Endpoint
    clients: int = 6
    answers: Counter[str] = field(default_factory=Counter)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.target.key}"}
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.target.config.port, timeout=20)
        ) as connection:
            while not self.stopped.is_set():
                try:
                    connection.request("POST", "/v1/predict", b'{"text": "where is my card"}', headers)
                    response = connection.getresponse()
                    content = response.read()
                    model = json.loads(content).get("model", "") if response.status == 200 else content[:80]
                    self.answers[f"{response.status} {model}"] += 1
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    self.answers[type(error).__name__] += 1


@pytest.fixture(scope="module")
def served(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The OpenVINO bundle on two replicas, with a key and access logs."""
    folder = tmp_path_factory.mktemp("endpoint")
    key, _ = create_key(folder / "keys.json", "tests")
    config = ServingConfig(
        port=free_port(),
        replicas=2,
        api_keys=str(folder / "keys.json"),
        access_log=str(folder / "log"),
        timeout_s=TIMEOUT_S,
        max_body_bytes=MAX_BODY_BYTES,
    )
    start_ray()
    try:
        url = deploy(bundles["openvino"], config, "tiny")
        yield Endpoint(config, url, key, folder / "keys.json", folder / "log")
        endpoint.shutdown()
    finally:
        stop_ray()


def deploy(bundle: Bundle, config: ServingConfig, model_name: str) -> str:
    return endpoint.deploy(
        bundle.folder, config, model_name=model_name, num_cpus=0.4, usd_per_core_second=1e-5, timeout_s=90
    )


def replicas() -> list[psutil.Process]:
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ServeReplica" in " ".join(process.cmdline()):
                found.append(process)
    return found


def wait_for(check: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.2)
    return check()


def test_a_host_that_others_reach_needs_keys(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    folder = bundles["openvino"].folder
    with pytest.raises(
        ConfigError, match=r"serving.host: an endpoint that other machines reach needs API keys"
    ):
        endpoint.deploy(folder, ServingConfig(host="0.0.0.0"), model_name="tiny")
    (tmp_path / "keys.json").write_text('{"keys": []}')
    with pytest.raises(ConfigError, match="the key file holds no key"):
        endpoint.deploy(folder, ServingConfig(api_keys=str(tmp_path / "keys.json")), model_name="tiny")


def test_each_replica_has_a_core_of_its_own(served: Endpoint) -> None:
    del served
    cores = os.sched_getaffinity(0)
    held = [set(process.cpu_affinity() or []) for process in replicas()]
    assert len(held) == 2
    assert all(len(group) == 1 for group in held)
    assert set.union(*held) <= cores
    assert len(set.union(*held)) == min(2, len(cores))


def test_keys_are_rotated_without_a_restart(served: Endpoint) -> None:
    assert served.send("/v1/predict", b"{}", authorization="")[0] == 401
    assert served.send("/healthz", authorization="")[0] == 200
    second, stored = create_key(served.keys_file, "second")
    given = {"authorization": "", "x-api-key": second}
    # Each of two replicas sees the file for itself.
    assert wait_for(lambda: all(served.send("/v2", **given)[0] == 200 for _ in range(8)), 5)
    revoke_key(served.keys_file, stored.id)
    assert wait_for(lambda: all(served.send("/v2", **given)[0] == 401 for _ in range(8)), 5)
    assert served.predict() == 200


def test_the_access_log_has_each_request_and_nothing_that_was_sent(served: Endpoint) -> None:
    body = json.dumps({"inputs": ["a secret text", "another"]}).encode()
    status, _, headers = served.send("/v1/predict?token=hidden", body, **{"x-request-id": "trace-7"})
    assert status == 200
    assert headers["x-request-id"] == "trace-7"
    assert float(headers["x-equipoise-cost-usd"]) > 0

    def lines() -> list[dict[str, Any]]:
        files = [file.read_text().splitlines() for file in served.log_folder.iterdir()]
        return [json.loads(line) for lines in files for line in lines]

    assert wait_for(lambda: any(line["request_id"] == "trace-7" for line in lines()), 5)
    line = next(line for line in lines() if line["request_id"] == "trace-7")
    assert (line["path"], line["status"], line["rows"]) == ("/v1/predict", 200, 2)
    everything = "".join(file.read_text() for file in served.log_folder.iterdir())
    assert not any(secret in everything for secret in ("secret", "hidden", served.key))


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-id": "\xff\xfe"},
        {"x-request-timeout-seconds": "0.000001"},
        {"x-request-timeout-seconds": "-1"},
        {"serve_multiplexed_model_id": "\xff"},
        {"x-session-id": "\xff"},
        {"traceparent": "\xff"},
    ],
)
def test_headers_that_serve_obeys_change_nothing(served: Endpoint, headers: dict[str, str]) -> None:
    assert served.send("/v1/predict", b'{"text": "a"}', **headers)[0] == 200


def test_a_body_that_comes_too_slowly_is_given_up(served: Endpoint) -> None:
    head = (
        f"POST /v1/predict HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {served.key}\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", served.config.port), timeout=10) as connection:
        start = time.monotonic()
        connection.sendall(head.encode())
        answer = b""
        while b"request_timeout" not in answer and (part := connection.recv(65536)):
            answer += part
        waited_s = time.monotonic() - start
    assert answer.startswith(b"HTTP/1.1 408")
    assert TIMEOUT_S * 0.9 < waited_s < TIMEOUT_S + 3
    assert served.predict() == 200


def test_a_connection_on_which_nothing_comes_is_closed(served: Endpoint) -> None:
    start = time.monotonic()
    answer = served.raw(b"POST /v1/predict HTTP/1.1\r\nhost: a\r\n", wait_s=20)
    assert time.monotonic() - start < TIMEOUT_S + 10
    assert not answer.startswith(b"HTTP/1.1 2")
    assert served.predict() == 200


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\xff\x16\x03\x01garbage\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345",
        b"POST /v1/predict HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /%00%ff%c0%ae/..;/v2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request_get_a_4xx_or_a_closed_connection(served: Endpoint, content: bytes) -> None:
    answer = served.raw(content, wait_s=5)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert b"Traceback" not in answer
    assert served.predict() == 200


def tensor(**changes: Any) -> bytes:
    held = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]} | changes
    return json.dumps({"inputs": [held]}).encode()


@pytest.mark.parametrize(
    "body",
    [
        tensor(shape=[2]),
        tensor(shape=[-1]),
        tensor(shape=[1, 1, 1]),
        tensor(shape=[10**30]),
        tensor(shape=[1.0]),
        tensor(shape=[True]),
        tensor(shape=None),
        tensor(data=[float("nan")]),
        tensor(data=[[["a"]]]),
        tensor(data={"0": "a"}),
        tensor(datatype="FP32", data=[1e999]),
        tensor(name="\ud800"),
        b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["\xff"]}]}',
        b'{"inputs":' * 400,
        b'{"inputs": [{"data": ' + b"[" * 3000 + b"]" * 500 + b"}]}",
        b'{"inputs": [' + b"9" * 4000 + b"]}",
    ],
)
def test_malformed_tensors_are_a_400_each(served: Endpoint, body: bytes) -> None:
    status, answer, _ = served.send("/v2/models/tiny/infer", body)
    assert status == 400
    assert set(answer["error"]) == {"code", "message"}
    assert served.predict() == 200


def test_a_killed_replica_costs_no_request(served: Endpoint) -> None:
    before = {process.pid for process in replicas()}
    with Load(served) as load:
        time.sleep(1)
        victim = next(iter(before))
        os.kill(victim, signal.SIGKILL)
        assert wait_for(lambda: len({p.pid for p in replicas()} - {victim}) == 2, 40)
        time.sleep(1)
    assert set(load.answers) == {"200 tiny"}, load.answers
    assert load.answers["200 tiny"] > 100


def test_a_new_bundle_takes_over_without_a_failed_request(
    served: Endpoint, bundles: dict[str, Bundle]
) -> None:
    with Load(served) as load:
        time.sleep(0.5)
        deploy(bundles["openvino"], served.config, "next")
        time.sleep(1)
    assert set(load.answers) == {"200 tiny", "200 next"}, load.answers


def test_a_bundle_that_does_not_start_never_gets_a_request(
    served: Endpoint, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.xml").write_text("no model")
    broken = write_bundle(
        tmp_path / "broken",
        name="broken",
        task=bundles["openvino"].load_task(),
        engine="openvino",
        precision="fp32",
        model_folder=tmp_path / "model",
        candidate={},
    )
    with Load(served) as load:
        with pytest.raises(ServiceError, match="the bundle before it is served still"):
            deploy(broken, served.config, "broken")
        time.sleep(1)
    assert set(load.answers) == {"200 next"}, load.answers


def test_replicas_are_added_for_what_arrives(served: Endpoint, bundles: dict[str, Bundle]) -> None:
    scaled = served.config.model_copy(update={"replicas": 1, "max_replicas": 2})
    endpoint.deploy(
        bundles["openvino"].folder,
        scaled,
        model_name="scaled",
        num_cpus=0.4,
        capacity=flat_capacity(20.0),
        timeout_s=90,
    )
    assert wait_for(lambda: len(replicas()) == 1, 30), "the two of before are gone"
    with Load(served) as load:
        assert wait_for(lambda: len(replicas()) == 2, 60)
        time.sleep(1)
    assert set(load.answers) == {"200 scaled"}, load.answers
    page = served.send("/metrics")[1]
    reasons = set(re.findall(r'equipoise_autoscaling_decisions_total\{[^}]*reason="(\w+)"', page))
    assert reasons & {"grow", "cap", "backlog"}


def test_client_replicas_and_ledger_count_the_same(
    served: Endpoint, bundles: dict[str, Bundle], run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    ledger = ReplicaLedger(str(tmp_path / "run"), run_config(), "aws/c7i.large")
    endpoint.deploy(
        bundles["openvino"].folder,
        served.config,
        model_name="billed",
        num_cpus=0.4,
        ledger=ledger,
        timeout_s=90,
    )
    with ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(lambda number: served.send("/v1/predict", BODIES[number % 4])[0], range(240))
        )
    counted = Counter(statuses)
    assert set(counted) == {200, 400}

    def metered(status: int) -> float | None:
        page = served.send("/metrics")[1]
        found = re.findall(
            rf'equipoise_requests_total\{{[^}}]*model="billed"[^}}]*status="{status}"[^}}]*\}} (\S+)', page
        )
        return sum(map(float, found))

    assert wait_for(lambda: metered(200) == counted[200], 10), metered(200)
    assert metered(400) == counted[400]
    endpoint.undeploy()
    lines = read_ledger(RunFolder(str(tmp_path / "run")))
    assert sum(line.requests for line in lines) == counted[200]
    assert len({line.resource_id for line in lines}) == 2
