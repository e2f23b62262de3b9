"""The application without a bundle, called as a server calls it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from equipoise_serving.waiting import WaitingGateway


def ask(path: str, method: str = "GET") -> tuple[int, bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    asyncio.run(
        WaitingGateway()({"type": "http", "path": path, "method": method, "headers": []}, receive, send)
    )
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("path", ["/healthz", "/v2/health/live"])
def test_it_is_alive(path: str) -> None:
    assert ask(path)[0] == 200


@pytest.mark.parametrize(
    ("path", "method"), [("/readyz", "GET"), ("/v2/health/ready", "GET"), ("/v1/predict", "POST")]
)
def test_it_is_not_ready_and_says_what_is_missing(path: str, method: str) -> None:
    status, body = ask(path, method)
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (503, "no_bundle")
    assert "serving.bundle" in error["message"]
    assert ask(path, "HEAD") == (503, b"")
