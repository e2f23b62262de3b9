"""The gateway over bare ASGI, without a server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from equipoise_serving.access_log import AccessLog
from equipoise_serving.api_keys import ApiKeys, create_key
from equipoise_serving.batching import Answered
from equipoise_serving.card import ModelCard
from equipoise_serving.errors import RequestError
from equipoise_serving.gateway import Gateway
from equipoise_serving.lookups import open_paths

LIMIT = 1024
CARD = ModelCard(
    name="tiny",
    task="text_classification",
    engine="torch",
    precision="fp32",
    labels=("1", "2", "3"),
    max_body_bytes=LIMIT,
    max_inputs=4,
    needs_key=False,
    usd_per_core_second=2e-5,
)
FORM = {"content-type": "application/x-www-form-urlencoded"}
BINARY = {"inference-header-content-length": "2"}


async def count_letters(texts: list[str]) -> Answered:
    """A model: the label is the length."""
    if "slow" in texts:
        await asyncio.sleep(5)
    if "broken" in texts:
        raise RequestError(500, "engine_failed", "the model failed on this batch")
    if "defect" in texts:
        raise ZeroDivisionError("secret: /home/someone")
    score = float("nan") if "nan" in texts else 1.0
    answers = [{"label": str(len(text)), "score": score, "scores": {}} for text in texts]
    return Answered(answers, queued_s=0.001, busy_s=0.5)


class Client:
    """Sends requests to a gateway and keeps what it counted."""

    def __init__(self, **given: Any) -> None:
        self.counted: list[int] = []
        self.gateway = Gateway(CARD, count_letters, self.counted.append, timeout_s=0.2, **given)

    def send(
        self,
        method: str,
        path: str,
        *chunks: bytes,
        headers: dict[str, str] | None = None,
        root_path: str = "",
        disconnect: bool = False,
    ) -> tuple[int, Any, dict[str, str]] | None:
        """Status, JSON (text of another kind, None without a body) and headers; None without an answer."""
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": root_path,
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        parts = chunks or (b"",)
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": number < len(parts) or disconnect}
            for number, part in enumerate(parts, 1)
        ]
        messages.append({"type": "http.disconnect"})
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def keep(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.gateway(scope, receive, keep))
        if not sent:
            return None
        start, body = sent
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        content = body["body"].decode()
        if content and found["content-type"] == "application/json":
            content = json.loads(content)
        return start["status"], content or None, found


@pytest.fixture
def client() -> Client:
    return Client()


def test_plain_prediction(client: Client) -> None:
    answered = client.send("POST", "/v1/predict", b'{"inputs": ', b'["a", "bcd"]}')
    assert answered is not None
    status, answer, headers = answered
    assert status == 200
    assert [row["label"] for row in answer["predictions"]] == ["1", "3"]
    assert headers["content-type"] == "application/json"
    assert client.counted == [200]


def test_path_below_a_root_path(client: Client) -> None:
    answered = client.send("POST", "/models/v1/predict", b'{"text": "a"}', root_path="/models")
    assert answered is not None
    assert answered[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("GET", "/v1/predict", b"", {}, 405, "method_not_allowed"),
        ("POST", "/readyz", b"", {}, 405, "method_not_allowed"),
        ("GET", "/nowhere", b"", {}, 404, "not_found"),
        ("GET", "/metrics", b"", {}, 404, "not_found"),
        ("POST", "/", b"", {}, 405, "method_not_allowed"),
        ("GET", "/v2/models/other", b"", {}, 404, "model_not_found"),
        ("POST", "/v1/predict", b"a=1", FORM, 415, "unsupported_media_type"),
        ("POST", "/v1/predict", b"{}", {"content-encoding": "gzip"}, 415, "unsupported_encoding"),
        ("POST", "/v2/models/tiny/infer", b"{}", BINARY, 415, "binary_not_supported"),
        ("POST", "/v1/predict", b"{}", {"content-length": str(LIMIT + 1)}, 413, "body_too_large"),
        ("POST", "/v1/predict", b"x" * (LIMIT + 1), {}, 413, "body_too_large"),
        ("POST", "/v1/predict", b'{"text": "slow"}', {}, 408, "request_timeout"),
        ("POST", "/v1/predict", b'{"text": "broken"}', {}, 500, "engine_failed"),
        ("POST", "/v1/predict", b'{"text": "nan"}', {}, 500, "engine_failed"),
        ("POST", "/v1/predict", b'{"text": "defect"}', {}, 500, "internal_error"),
        ("POST", "/v1/predict", b'{"inputs": ["", "", "", "", ""]}', {}, 413, "too_many_inputs"),
    ],
)  # fmt: skip
def test_faults_have_a_status_and_a_code(
    client: Client, method: str, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answered = client.send(method, path, body, headers=headers)
    assert answered is not None
    found, answer, _ = answered
    assert (found, answer["error"]["code"]) == (status, code)
    assert set(answer["error"]) == {"code", "message"}
    assert "secret" not in answer["error"]["message"]
    inference = path in ("/v1/predict", "/v2/models/tiny/infer")
    assert client.counted == ([status] if inference else [])


def test_wrong_method_names_the_right_one(client: Client) -> None:
    for method, path, allowed in (("GET", "/v1/predict", "POST"), ("DELETE", "/v2", "GET, HEAD")):
        answered = client.send(method, path)
        assert answered is not None
        assert answered[2]["allow"] == allowed


def test_head_has_no_body(client: Client) -> None:
    answered = client.send("HEAD", "/healthz")
    assert answered is not None
    assert answered[:2] == (200, None)
    assert int(answered[2]["content-length"]) > 0


def test_client_that_leaves_gets_nothing_and_is_not_counted(client: Client) -> None:
    assert client.send("POST", "/v1/predict", b'{"text"', disconnect=True) is None
    assert client.counted == []


def test_lifespan_and_websocket_are_answered(client: Client) -> None:
    async def talk(scope: dict[str, Any], messages: list[dict[str, Any]]) -> list[str]:
        sent: list[str] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def keep(message: Any) -> None:
            sent.append(message["type"])

        await client.gateway(scope, receive, keep)
        return sent

    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    assert asyncio.run(talk({"type": "lifespan"}, events)) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert asyncio.run(talk({"type": "websocket", "path": "/"}, [])) == ["websocket.close"]


def test_an_answer_states_what_it_took(client: Client) -> None:
    answered = client.send("POST", "/v1/predict", b'{"text": "a"}')
    assert answered is not None
    assert answered[2]["server-timing"] == "queue;dur=1.00, engine;dur=500.000"
    assert float(answered[2]["x-equipoise-cost-usd"]) == pytest.approx(0.5 * 2e-5)


def test_requests_without_a_known_key_are_refused_before_their_body_is_read(tmp_path: Path) -> None:
    key, stored = create_key(tmp_path / "keys.json", "shop")
    client = Client(keys=ApiKeys(tmp_path / "keys.json"), access_log=(log := AccessLog(tmp_path / "log")))
    for path in ("/v1/predict", "/v2/models/tiny/infer", "/v2", "/metrics", "/nowhere"):
        for headers in ({}, {"authorization": "Bearer eqp_wrong"}, {"authorization": f"Basic {key}"}):
            answered = client.send("POST", path, b"{" * 2000, headers=headers)
            assert answered is not None
            assert (answered[0], answered[1]["error"]["code"]) == (401, "unauthorized")
            assert answered[2]["www-authenticate"] == "Bearer"
    for path in open_paths("tiny"):
        answered = client.send("GET", path)
        assert answered is not None
        assert answered[0] == 200, path
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        answered = client.send("POST", "/v1/predict", b'{"text": "top secret"}', headers=headers)
        assert answered is not None
        assert answered[0] == 200
    log.close()
    lines = [json.loads(line) for line in log.file.read_text().splitlines()]
    assert len(lines) == 15 + len(open_paths("tiny")) + 2
    assert lines[-1]["key"] == stored.id
    assert lines[-1]["rows"] == 1
    assert {line["status"] for line in lines} == {200, 401}
    assert "top secret" not in log.file.read_text()
    assert key not in log.file.read_text()


def test_the_page_may_load_nothing_from_elsewhere(client: Client) -> None:
    answered = client.send("GET", "/")
    assert answered is not None
    status, page, headers = answered
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">' in page
    assert "://" not in page
    assert "tiny" in page
    other = client.send("GET", "/")
    assert other is not None
    assert other[2]["content-security-policy"] != policy


def test_metrics_are_whatever_the_reader_gives() -> None:
    async def read() -> str:
        return "equipoise_requests_total 1.0\n"

    answered = Client(read_metrics=read).send("GET", "/metrics")
    assert answered is not None
    assert answered[:2] == (200, "equipoise_requests_total 1.0\n")
    assert answered[2]["content-type"].startswith("text/plain; version=0.0.4")
