"""The ASGI application: who may ask, for how long, what is counted, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from equipoise_serving.access_log import AccessLog
from equipoise_serving.api_keys import ApiKeys, presented_key
from equipoise_serving.card import ModelCard
from equipoise_serving.errors import RequestError
from equipoise_serving.event_stream import send_events, while_there
from equipoise_serving.http import (
    ClientGoneError,
    Exchange,
    Receive,
    Reply,
    Scope,
    Send,
    error_reply,
    json_reply,
    read_json_body,
    send_reply,
)
from equipoise_serving.lifespan import answer_lifespan
from equipoise_serving.lookups import Lookups, open_paths, wrong_method
from equipoise_serving.openai_answer import error_body
from equipoise_serving.predictions import Handler, Predict, Predictions
from equipoise_serving.text_writer import TextWriter

_log = logging.getLogger("ray.serve")


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
        self._count_request = count_request
        self._timeout_s = timeout_s
        self._keys = keys
        self._access_log = access_log
        self._open_paths = open_paths(card.name)
        self._writer = writer
        self._inference: dict[str, Handler] = {}
        self._writing: dict[str, bool] = {}
        """Whether a path that writes takes a chat."""
        listed: dict[str, Reply] = {}
        if writer is not None:
            listed = {
                "/v1/models": json_reply(writer.models()),
                f"/v1/models/{card.name}": json_reply(writer.model()),
            }
            self._writing = {"/v1/completions": False, "/v1/chat/completions": True}
        elif predict is not None:
            self._inference = Predictions(card, predict).handlers()
        self._lookups = Lookups(card, read_metrics, listed)

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
        exchange = Exchange()
        handler = self._inference.get(path)
        stream: AsyncGenerator[bytes, None] | None = None
        try:
            if self._keys is not None and path not in self._open_paths:
                exchange.key = self._admit(self._keys, scope)
            if path in self._writing:
                if method != "POST":
                    raise wrong_method(method, "POST")
                async with asyncio.timeout(self._timeout_s):
                    found = await self._write(scope, receive, self._writing[path], exchange)
                if isinstance(found, Reply):
                    reply = found
                else:
                    stream, reply = found, Reply(200, b"")
            elif handler is None:
                reply = await self._lookups.answer(path, method)
            else:
                # One clock for the body and the answer: a client that sends slowly has no more time.
                async with asyncio.timeout(self._timeout_s):
                    if method != "POST":
                        raise wrong_method(method, "POST")
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
        self, scope: Scope, receive: Receive, chat: bool, exchange: Exchange
    ) -> Reply | AsyncGenerator[bytes, None]:
        assert self._writer is not None  # noqa: S101 - there is no such path without one
        body = await read_json_body(scope, receive, self.card.max_body_bytes)
        found, exchange.rows = await while_there(receive, self._writer.answer(body, chat=chat))
        return found

    async def _send_stream(self, parts: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
        late = RequestError(408, "request_timeout", f"no token within {self._timeout_s:g} seconds")
        await send_events(parts, receive, send, timeout_s=self._timeout_s, late=self._error(late).body)

    def _admit(self, keys: ApiKeys, scope: Scope) -> str:
        """The id of the request's key."""
        found = keys.find(presented_key(dict(scope["headers"])))
        if found is None:
            raise RequestError(
                401, "unauthorized", "send a known API key", ((b"www-authenticate", b"Bearer"),)
            )
        return found.id


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return str(value.decode("latin-1"))
    return ""
