"""Bodies in and JSON out over bare ASGI: no framework stands between the server and the model."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from equipoise_serving.errors import RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
_CLOSE: Headers = ((b"connection", b"close"),)


class ClientGoneError(Exception):
    """The client closed the connection before its body was complete; nobody reads an answer."""


@dataclass
class Exchange:
    """What is known of one request so far."""

    rows: int = 0
    key: str = ""


@dataclass(frozen=True)
class Reply:
    """A whole response."""

    status: int
    body: bytes
    headers: Headers = ()
    media_type: bytes = JSON


def json_reply(value: Any, status: int = 200, headers: Headers = ()) -> Reply:
    """A JSON response.

    Raises:
        RequestError: 500 `engine_failed`, where a number is not finite.
    """
    body = orjson.dumps(value)
    # orjson writes what is not finite as null; where there is a null, a slower encoder tells.
    if b"null" in body:
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise RequestError(500, "engine_failed", "the model gave a number that is not finite") from None
    return Reply(status, body, headers)


def error_reply(error: RequestError) -> Reply:
    """The response to a request that failed."""
    return json_reply(error.body(), error.status, error.headers)


async def read_json_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The body of a JSON request, at most `limit` bytes of it.

    Raises:
        RequestError: 413 `body_too_large`, 415 for another media type or an encoded body.
        ClientGoneError: the client left.
    """
    headers = dict(scope["headers"])
    media_type = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise RequestError(415, "unsupported_media_type", "send the body as application/json")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RequestError(415, "unsupported_encoding", "send the body without a content-encoding")
    if b"inference-header-content-length" in headers:
        raise RequestError(415, "binary_not_supported", "send tensors as JSON, not as binary data")
    declared = headers.get(b"content-length", b"")
    # The rest of a body that is refused half-way is not read: the connection ends with the answer.
    too_large = RequestError(413, "body_too_large", f"the body exceeds {limit} bytes", _CLOSE)
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large
        if not message.get("more_body", False):
            return bytes(body)


async def send_reply(send: Send, reply: Reply, *, head: bool = False) -> None:
    """Send a response; without its body for HEAD."""
    await send(
        {
            "type": "http.response.start",
            "status": reply.status,
            "headers": [
                (b"content-type", reply.media_type),
                (b"content-length", str(len(reply.body)).encode()),
                *reply.headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else reply.body})
