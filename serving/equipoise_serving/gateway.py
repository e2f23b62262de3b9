"""The ASGI application: routes, protocols, limits and errors around one `predict`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from equipoise import __version__
from equipoise_serving.access_log import AccessLog
from equipoise_serving.api_keys import ApiKeys, presented_key
from equipoise_serving.batching import Answered
from equipoise_serving.card import ModelCard
from equipoise_serving.errors import RequestError
from equipoise_serving.http import (
    ClientGoneError,
    Headers,
    Receive,
    Reply,
    Scope,
    Send,
    error_reply,
    json_reply,
    read_json_body,
    send_reply,
)
from equipoise_serving.inference_protocol import (
    model_metadata,
    parse_infer,
    render_infer,
    server_metadata,
)
from equipoise_serving.openapi import openapi_document
from equipoise_serving.page import page_reply
from equipoise_serving.plain import parse_predict, render_predict
from equipoise_serving.text_writer import TextWriter, error_body

Predict = Callable[[list[str]], Awaitable[Answered]]
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
"""Answered without an API key, as is the model's own readiness: probes, the document and the page."""
_PLAIN_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_Found = TypeVar("_Found")
_log = logging.getLogger("ray.serve")


@dataclass
class _Exchange:
    """What is known of one request so far."""

    rows: int = 0
    key: str = ""


class Gateway:
    """Answers HTTP for one model.

    Args:
        card: the model and the limits.
        predict: one answer a text, in order; may raise RequestError. None where texts are written.
        count_request: called with the HTTP status of each inference request.
        timeout_s: longest time from the first byte of a request to its answer.
        keys: who may ask; None takes everyone.
        access_log: where each request leaves a line; None keeps none.
        read_metrics: the page that `/metrics` answers with.
        writer: of a language model: answers OpenAI's protocol in place of predictions.
    """

    def __init__(
        self,
        card: ModelCard,
        predict: Predict | None,
        count_request: Callable[[int], None],
        *,
        timeout_s: float,
        keys: ApiKeys | None = None,
        access_log: AccessLog | None = None,
        read_metrics: Callable[[], Awaitable[str]] | None = None,
        writer: TextWriter | None = None,
    ) -> None:
        self.card = card
        self._predict = predict
        self._count_request = count_request
        self._timeout_s = timeout_s
        self._keys = keys
        self._access_log = access_log
        self._open_paths = OPEN_PATHS | {f"/v2/models/{card.name}/ready"}
        self._read_metrics = read_metrics
        name = card.name
        ready = json_reply({"ready": True})
        self._fixed = {
            "/healthz": json_reply({"status": "ok"}),
            "/readyz": json_reply({"status": "ready", "model": name}),
            "/openapi.json": json_reply(openapi_document(card, __version__)),
            "/v2": json_reply(server_metadata(__version__)),
            "/v2/health/live": json_reply({"live": True}),
            "/v2/health/ready": ready,
            f"/v2/models/{name}": json_reply(model_metadata(name, card.engine)),
            f"/v2/models/{name}/ready": ready,
        }
        self._writer = writer
        self._inference: dict[str, Callable[[bytes, _Exchange], Awaitable[Reply]]] = {}
        self._writing: dict[str, bool] = {}
        """Whether a path that writes takes a chat."""
        if writer is None:
            self._inference = {"/v1/predict": self._plain, f"/v2/models/{name}/infer": self._infer}
        else:
            self._fixed |= {
                "/v1/models": json_reply(writer.models()),
                f"/v1/models/{name}": json_reply(writer.model()),
            }
            self._writing = {"/v1/completions": False, "/v1/chat/completions": True}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection scope."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        method: str = scope["method"]
        exchange = _Exchange()
        handler = self._inference.get(path)
        stream: AsyncGenerator[bytes, None] | None = None
        try:
            if self._keys is not None and path not in self._open_paths:
                exchange.key = self._admit(self._keys, scope)
            if path in self._writing:
                if method != "POST":
                    raise _wrong_method(method, "POST")
                async with asyncio.timeout(self._timeout_s):
                    found = await self._write(scope, receive, self._writing[path], exchange)
                if isinstance(found, Reply):
                    reply = found
                else:
                    stream, reply = found, Reply(200, b"")
            elif handler is None:
                reply = await self._look_up(path, method)
            else:
                # One clock for the body and the answer: a client that sends slowly has no more time.
                async with asyncio.timeout(self._timeout_s):
                    if method != "POST":
                        raise _wrong_method(method, "POST")
                    body = await read_json_body(scope, receive, self.card.max_body_bytes)
                    reply = await handler(body, exchange)
        except RequestError as error:
            reply = self._error(error)
        except TimeoutError:
            reply = self._error(
                RequestError(
                    408,
                    "request_timeout",
                    f"no answer within {self._timeout_s:g} seconds",
                    ((b"connection", b"close"),),
                )
            )
        except ClientGoneError:
            return
        except Exception:  # noqa: BLE001 - the last resort
            # Whatever it was, a client sees one line and the log has the rest.
            _log.exception("a request failed")
            reply = self._error(RequestError(500, "internal_error", "the request failed"))
        if stream is not None:
            await self._send_stream(stream, receive, send)
        if handler is not None or path in self._writing:
            self._count_request(reply.status)
        if self._access_log is not None:
            self._access_log.write(
                request_id=_request_id(scope),
                method=method,
                path=path,
                status=reply.status,
                rows=exchange.rows,
                elapsed_s=time.perf_counter() - start,
                key=exchange.key,
            )
        if stream is None:
            await send_reply(send, reply, head=method == "HEAD")

    def _error(self, error: RequestError) -> Reply:
        """The response to a request that failed, in the shape of the endpoint's protocol."""
        if self._writer is None:
            return error_reply(error)
        return json_reply(error_body(error), error.status, error.headers)

    async def _write(
        self, scope: Scope, receive: Receive, chat: bool, exchange: _Exchange
    ) -> Reply | AsyncGenerator[bytes, None]:
        assert self._writer is not None  # noqa: S101 - there is no such path without one
        body = await read_json_body(scope, receive, self.card.max_body_bytes)
        found, exchange.rows = await _while_there(receive, self._writer.answer(body, chat=chat))
        return found

    async def _send_stream(self, parts: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
        """Send what is written as it comes; a client that leaves, or reads nothing for long, ends it."""

        async def pass_on() -> None:
            async with aclosing(parts):
                await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
                while True:
                    async with asyncio.timeout(self._timeout_s):
                        part = await anext(parts, None)
                        if part is None:
                            break
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b""})

        try:
            await _while_there(receive, pass_on())
        except ClientGoneError:
            return
        except TimeoutError:
            late = RequestError(408, "request_timeout", f"no token within {self._timeout_s:g} seconds")
            event = b"data: " + self._error(late).body + b"\n\n"
            await send({"type": "http.response.body", "body": event})

    def _admit(self, keys: ApiKeys, scope: Scope) -> str:
        """The id of the request's key."""
        found = keys.find(presented_key(dict(scope["headers"])))
        if found is None:
            raise RequestError(
                401, "unauthorized", "send a known API key", ((b"www-authenticate", b"Bearer"),)
            )
        return found.id

    async def _look_up(self, path: str, method: str) -> Reply:
        is_metrics = path == "/metrics" and self._read_metrics is not None
        reply = self._fixed.get(path)
        if reply is None and path != "/" and not is_metrics:
            if path.startswith("/v2/models/"):
                raise RequestError(404, "model_not_found", "no such model or path here")
            raise RequestError(404, "not_found", "no such path here")
        if method not in ("GET", "HEAD"):
            raise _wrong_method(method, "GET, HEAD")
        if reply is not None:
            return reply
        if path == "/":
            return page_reply(self.card)
        assert self._read_metrics is not None  # noqa: S101 - is_metrics
        return Reply(200, (await self._read_metrics()).encode(), (), _PLAIN_TEXT)

    async def _plain(self, body: bytes, exchange: _Exchange) -> Reply:
        assert self._predict is not None  # noqa: S101 - there is no such path without one
        texts = parse_predict(body, self.card.max_inputs)
        exchange.rows = len(texts)
        answered = await self._predict(texts)
        return json_reply(render_predict(self.card.name, answered.answers), headers=self._cost(answered))

    async def _infer(self, body: bytes, exchange: _Exchange) -> Reply:
        assert self._predict is not None  # noqa: S101 - there is no such path without one
        request = parse_infer(body, self.card.max_inputs)
        exchange.rows = len(request.texts)
        answered = await self._predict(request.texts)
        return json_reply(
            render_infer(self.card.name, request, answered.answers), headers=self._cost(answered)
        )

    def _cost(self, answered: Answered) -> Headers:
        """Milliseconds in the queue and in the engine, and dollars where there is a price."""
        timing = f"queue;dur={answered.queued_s * 1000:.2f}, engine;dur={answered.busy_s * 1000:.3f}"
        headers: Headers = ((b"server-timing", timing.encode()),)
        if self.card.usd_per_core_second is None:
            return headers
        usd = answered.busy_s * self.card.usd_per_core_second
        return (*headers, (b"x-equipoise-cost-usd", f"{usd:.4g}".encode()))


async def _while_there(receive: Receive, work: Coroutine[None, None, _Found]) -> _Found:
    """What some work comes to; cancelled as soon as the client leaves.

    Serve's own watch for that is switched off at the ingress.

    Raises:
        ClientGoneError: the client left first.
    """

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.create_task(work), asyncio.create_task(leave())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def _wrong_method(method: str, allowed: str) -> RequestError:
    return RequestError(
        405,
        "method_not_allowed",
        f"{method} is not allowed here; use {allowed}",
        ((b"allow", allowed.encode()),),
    )


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Start up and shut down at once: there is nothing to do."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return str(value.decode("latin-1"))
    return ""
