"""The gateway over bare ASGI, without a server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from equipoise_serving.errors import RequestError
from equipoise_serving.gateway import Gateway
from equipoise_serving.plain import Prediction

LIMIT = 1024
FORM = {"content-type": "application/x-www-form-urlencoded"}
BINARY = {"inference-header-content-length": "2"}


async def count_letters(texts: list[str]) -> list[Prediction]:
    """A model: the label is the length."""
    if "slow" in texts:
        await asyncio.sleep(5)
    if "broken" in texts:
        raise RequestError(500, "engine_failed", "the model failed on this batch")
    if "nan" in texts:
        return [{"label": "1", "score": float("nan"), "scores": {}} for _ in texts]
    return [{"label": str(len(text)), "score": 1.0, "scores": {}} for text in texts]


class Client:
    """Sends requests to a gateway and keeps what it counted."""

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.gateway = Gateway(
            "tiny", "torch", count_letters, self.counted.append, max_body_bytes=LIMIT, timeout_s=0.2
        )

    def send(
        self,
        method: str,
        path: str,
        *chunks: bytes,
        headers: dict[str, str] | None = None,
        root_path: str = "",
        disconnect: bool = False,
    ) -> tuple[int, Any, dict[str, str]] | None:
        """Status, JSON (None without a body) and headers; None if nothing was answered."""
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
        return start["status"], json.loads(body["body"]) if body["body"] else None, found


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
        ("GET", "/", b"", {}, 404, "not_found"),
        ("GET", "/v2/models/other", b"", {}, 404, "model_not_found"),
        ("POST", "/v1/predict", b"a=1", FORM, 415, "unsupported_media_type"),
        ("POST", "/v1/predict", b"{}", {"content-encoding": "gzip"}, 415, "unsupported_encoding"),
        ("POST", "/v2/models/tiny/infer", b"{}", BINARY, 415, "binary_not_supported"),
        ("POST", "/v1/predict", b"{}", {"content-length": str(LIMIT + 1)}, 413, "body_too_large"),
        ("POST", "/v1/predict", b"x" * (LIMIT + 1), {}, 413, "body_too_large"),
        ("POST", "/v1/predict", b'{"text": "slow"}', {}, 408, "request_timeout"),
        ("POST", "/v1/predict", b'{"text": "broken"}', {}, 500, "engine_failed"),
        ("POST", "/v1/predict", b'{"text": "nan"}', {}, 500, "engine_failed"),
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
