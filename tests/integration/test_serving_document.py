"""The gateway behind a real HTTP server, asked what its own document promises, and by a browser."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gzip
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from equipoise.bundle import Bundle
from equipoise.engines import Predictor, open_engine
from equipoise_serving.batching import Answer, Batcher
from equipoise_serving.card import ModelCard
from equipoise_serving.gateway import Gateway

USD_PER_CORE_SECOND = 1e-5


@pytest.fixture(scope="module")
def urls(bundles: dict[str, Bundle], serve_app: Callable[[Any], Any]) -> Iterator[tuple[str, str]]:
    """The OpenVINO bundle behind uvicorn, as a replica runs it, without Ray."""
    bundle = bundles["openvino"]
    task = bundle.load_task()

    def batcher() -> Batcher:
        predictor = Predictor(task, open_engine("openvino", bundle.model_folder, "fp32", threads=1))

        def run(rows: list[Any]) -> tuple[list[Answer], float]:
            start = time.perf_counter()
            return predictor.predict(rows), time.perf_counter() - start

        return Batcher(
            run,
            len,
            max_rows=8,
            max_tokens=512,
            max_wait_s=10,
            max_waiting_rows=10_000,
            thread=ThreadPoolExecutor(1),
        )

    card = ModelCard(
        name="tiny",
        task="text_classification",
        engine="openvino",
        precision="fp32",
        labels=tuple(task.labels),
        max_body_bytes=65_536,
        max_inputs=16,
        needs_key=False,
        usd_per_core_second=USD_PER_CORE_SECOND,
    )
    gateways = [Gateway(card, batcher().submit, lambda status: None, timeout_s=each) for each in (10, 1)]
    with serve_app(gateways[0]) as found, serve_app(gateways[1]) as impatient:
        yield found, impatient


@pytest.fixture(scope="module")
def url(urls: tuple[str, str]) -> str:
    return urls[0]


@pytest.fixture(scope="module")
def slow_url(urls: tuple[str, str]) -> str:
    """The same model with a second for each request."""
    return urls[1]


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    """The endpoint's own document, loaded from it."""
    refused = {"expected-statuses": [400, 404, 405, 408, 413, 415]}
    config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": refused}})
    return schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)


def test_the_calls_on_the_page_work_as_they_are_written(url: str, repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "serving.md").read_text(encoding="utf-8")
    here = page.replace("http://127.0.0.1:8000", url).replace("/v2/models/demo", "/v2/models/tiny")
    calls = re.findall(r"^    (curl .*(?:\n      .*)*)", here, flags=re.MULTILINE)
    calls = [call for call in calls if "/v1/completions" not in call]  # test_generation.py
    assert len(calls) == 2
    for call in calls:
        found = subprocess.run(["bash", "-c", call], capture_output=True, timeout=20, check=True)
        answer = json.loads(found.stdout)
        assert "predictions" in answer or [output["name"] for output in answer["outputs"]] == [
            "label",
            "score",
        ]
    [program] = re.findall(r"```python\n(.*?)```", here, flags=re.DOTALL)
    (tmp_path / "call.py").write_text(program, encoding="utf-8")
    found = subprocess.run(
        [sys.executable, tmp_path / "call.py"], capture_output=True, timeout=20, check=True
    )
    assert len(ast.literal_eval(found.stdout.decode())) == 2


def check_every_operation(document: Any, examples: int) -> int:
    """Send so many requests to each operation and of each kind, as documented and not; returns how many."""
    operations = [found.ok() for found in document.get_all_operations()]
    return sum(check(operation, mode, examples) for operation in operations for mode in GenerationMode)


def check(operation: Any, mode: GenerationMode, examples: int) -> int:
    sent = 0
    # That a tensor's shape fits its data is more than a JSON schema can say.
    unsayable = [positive_data_acceptance] if operation.path.endswith("/infer") else []

    @seed(13)
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def hold(case: Any) -> None:
        nonlocal sent
        sent += 1
        case.call_and_validate(timeout=20, excluded_checks=unsayable)

    # An operation without parameters cannot be asked wrongly.
    with contextlib.suppress(Unsatisfiable):
        hold()
    return sent


def test_every_answer_is_one_that_the_document_allows(document: Any) -> None:
    assert check_every_operation(document, examples=40) > 150


@pytest.mark.slow
def test_ten_thousand_requests_get_no_other_answer(document: Any) -> None:
    assert check_every_operation(document, examples=2600) >= 10_000


TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["where is my card"]}
DEEP = b"[" * 20_000 + b"]" * 20_000
BOMB = gzip.compress(b'{"text": "' + b"a" * 2**24 + b'"}')


def infer_body(**change: Any) -> bytes:
    return json.dumps({"inputs": [{**TENSOR, **change}]}).encode()


def post(url: str, body: bytes, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, {"content-type": "application/json", **named})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        *(
            ("/v2/models/tiny/infer", infer_body(shape=shape), {}, 400)
            for shape in (
                [],
                [0],
                [2],
                [-1],
                [1, 2],
                [1, 1, 1],
                [2**62, 4],
                [1.0],
                [True],
                ["1"],
                None,
                1,
                {},
            )
        ),
        *(
            ("/v2/models/tiny/infer", infer_body(data=data, shape=[len(data)]), {}, 400)
            for data in ([], [None], [1], [True], [["a", "b"]], [[["a"]]], [{}], ["a", 2], ["\ud800"])
        ),
        ("/v2/models/tiny/infer", infer_body(data="where is my card"), {}, 400),
        ("/v2/models/tiny/infer", infer_body(data=[f"{n}" for n in range(17)], shape=[17]), {}, 413),
        ("/v2/models/tiny/infer", infer_body(datatype="FP32"), {}, 400),
        ("/v2/models/tiny/infer", infer_body(datatype=["BYTES"]), {}, 400),
        ("/v2/models/tiny/infer", infer_body(name="TEXT"), {}, 400),
        ("/v2/models/tiny/infer", b'{"inputs": [{"name": "text", "data": [NaN]}]}', {}, 400),
        ("/v2/models/tiny/infer", b'{"inputs": [], "id": -Infinity}', {}, 400),
        *(
            (path, body, headers, status)
            for path in ("/v1/predict", "/v2/models/tiny/infer")
            for body, headers, status in (
                (b"", {}, 400),
                (b"\xff\xfe{\x00}\x00", {}, 400),
                (b'{"text": "\xc3\x28"}', {}, 400),
                (b'{"text": "\xed\xa0\x80"}', {}, 400),
                (DEEP, {}, 400),
                (b'{"inputs": ' + DEEP + b"}", {}, 400),
                (b'{"a":' * 10_000, {}, 400),
                (b'{"text": 1' + b"0" * 20_000 + b"}", {}, 400),
                (BOMB, {"content_encoding": "gzip"}, 415),
                (BOMB, {"content_encoding": "identity"}, 400),
                (b"a" * 70_000, {}, 413),
                (b"{}", {"content_type": "text/plain"}, 415),
                (b"{}", {"inference_header_content_length": "1"}, 415),
            )
        ),
    ],
)
def test_what_is_meant_to_break_it_is_a_4xx_and_the_next_request_is_answered(
    url: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    found, answer = post(url + path, body, **headers)
    assert found == status, answer
    assert answer["error"].keys() == {"code", "message"}
    assert post(f"{url}/v1/predict", b'{"text": "still here"}')[0] == 200


@pytest.mark.parametrize("end", [b"", b"x", b"\r\n\r\n", b"1\r\na\r\n"])
def test_a_body_that_comes_too_slowly_or_never_ends_closes_its_connection(
    url: str, slow_url: str, end: bytes
) -> None:
    host, port = slow_url.removeprefix("http://").split(":")
    coding = "transfer-encoding: chunked" if end.startswith(b"1") else "content-length: 100"
    head = f"POST /v1/predict HTTP/1.1\r\nhost: tiny\r\ncontent-type: application/json\r\n{coding}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode() + end)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answer
    assert post(f"{slow_url}/v1/predict", b'{"text": "still here"}')[0] == 200


class Browser:
    """Headless Chromium, driven over its own debugging protocol."""

    def __init__(self, program: str, profile: Path) -> None:
        self._process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().strip()):
            assert self._process.poll() is None, "Chromium ended at its start"
            assert time.monotonic() < deadline, "Chromium did not start in time"
            time.sleep(0.1)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as response:
            pages = [target for target in json.load(response) if target["type"] == "page"]
        self._socket_url = pages[0]["webSocketDebuggerUrl"]

    def run(self, url: str, script: str) -> Any:
        """Open a page and evaluate a script in it; returns what it resolves to."""
        return asyncio.run(self._run(url, script))

    async def _run(self, url: str, script: str) -> Any:
        async with aiohttp.ClientSession() as session, session.ws_connect(self._socket_url) as connection:
            number = 0

            async def ask(method: str, **params: Any) -> Any:
                nonlocal number
                number += 1
                await connection.send_json({"id": number, "method": method, "params": params})
                while (answer := await connection.receive_json(timeout=30)).get("id") != number:
                    pass
                return answer["result"]

            await ask("Page.enable")
            await ask("Page.navigate", url=url)
            while (await connection.receive_json(timeout=30)).get("method") != "Page.loadEventFired":
                pass
            found = await ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
            assert "exceptionDetails" not in found, found
            return found["result"].get("value")

    def close(self) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait(10)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on the PATH to open the page with")
    found = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


TRY = """
new Promise((done) => {
  document.getElementById("text").value = %s;
  document.getElementById("send").click();
  const start = Date.now(), look = () => {
    const error = document.getElementById("error").textContent;
    if (error || !document.getElementById("answer").hidden || Date.now() - start > 20000)
      done({error, label: document.getElementById("label").textContent,
            rows: document.querySelectorAll("#scores tr").length,
            engine: document.getElementById("engine").textContent,
            cost: document.getElementById("cost").textContent,
            loaded: performance.getEntriesByType("resource").map((entry) => entry.name)});
    else setTimeout(look, 50);
  };
  look();
})
"""


def test_the_page_shows_label_latency_and_dollars(
    url: str, browser: Browser, bundles: dict[str, Bundle]
) -> None:
    found = browser.run(f"{url}/", TRY % json.dumps("where is my <b>card</b>"))
    assert found["error"] == ""
    label, share = found["label"].rsplit(" ", 1)
    assert label in bundles["openvino"].load_task().labels
    assert 33 <= float(share.rstrip("%")) <= 100
    assert found["rows"] == 3
    milliseconds = float(found["engine"].split()[0])
    usd = float(found["cost"].split()[0].lstrip("$"))
    assert usd == pytest.approx(milliseconds / 1000 * USD_PER_CORE_SECOND, rel=0.02)
    assert found["loaded"] == [f"{url}/v1/predict"], "the page may load nothing else"


def test_the_page_shows_the_endpoint_s_own_words_for_an_error(url: str, browser: Browser) -> None:
    found = browser.run(f"{url}/", TRY % json.dumps("a" * 70_000))
    assert found["error"] == "the body exceeds 65536 bytes"
