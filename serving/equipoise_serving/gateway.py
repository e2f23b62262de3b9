"""The ASGI application: routes, protocols, limits and errors around one `predict`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from equipoise import __version__
from equipoise_serving.errors import RequestError
from equipoise_serving.http import (
    ClientGoneError,
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
from equipoise_serving.plain import Prediction, parse_predict, render_predict

Predict = Callable[[list[str]], Awaitable[list[Prediction]]]


class Gateway:
    """Answers HTTP for one model.

    Args:
        model_name: name in paths, answers and metrics.
        engine: engine name, for the metadata.
        predict: one prediction a text, in order; may raise RequestError.
        count_request: called with the HTTP status of each inference request.
        max_body_bytes: largest body taken.
        timeout_s: longest time from the first byte of a request to its answer.
    """

    def __init__(
        self,
        model_name: str,
        engine: str,
        predict: Predict,
        count_request: Callable[[int], None],
        *,
        max_body_bytes: int,
        timeout_s: float,
    ) -> None:
        self.model_name = model_name
        self._predict = predict
        self._count_request = count_request
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        metadata = json_reply(model_metadata(model_name, engine))
        ready = json_reply({"ready": True})
        self._fixed = {
            "/healthz": json_reply({"status": "ok"}),
            "/readyz": json_reply({"status": "ready", "model": model_name}),
            "/v2": json_reply(server_metadata(__version__)),
            "/v2/health/live": json_reply({"live": True}),
            "/v2/health/ready": ready,
            f"/v2/models/{model_name}": metadata,
            f"/v2/models/{model_name}/ready": ready,
        }
        self._inference: dict[str, Callable[[bytes], Awaitable[Reply]]] = {
            "/v1/predict": self._plain,
            f"/v2/models/{model_name}/infer": self._infer,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection scope."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        method: str = scope["method"]
        handler = self._inference.get(path)
        if handler is None:
            await send_reply(send, self._look_up(path, method), head=method == "HEAD")
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                if method != "POST":
                    raise _wrong_method(method, "POST")
                reply = await handler(await read_json_body(scope, receive, self._max_body_bytes))
        except RequestError as error:
            reply = error_reply(error)
        except TimeoutError:
            reply = error_reply(
                RequestError(408, "request_timeout", f"no answer within {self._timeout_s:g} seconds")
            )
        except ClientGoneError:
            return
        self._count_request(reply.status)
        await send_reply(send, reply, head=method == "HEAD")

    def _look_up(self, path: str, method: str) -> Reply:
        reply = self._fixed.get(path)
        if reply is None:
            if path.startswith("/v2/models/"):
                return error_reply(RequestError(404, "model_not_found", "no such model or path here"))
            return error_reply(RequestError(404, "not_found", "no such path here"))
        if method not in ("GET", "HEAD"):
            return error_reply(_wrong_method(method, "GET, HEAD"))
        return reply

    async def _plain(self, body: bytes) -> Reply:
        predictions = await self._predict(parse_predict(body))
        return json_reply(render_predict(self.model_name, predictions))

    async def _infer(self, body: bytes) -> Reply:
        request = parse_infer(body)
        predictions = await self._predict(request.texts)
        return json_reply(render_infer(self.model_name, request, predictions))


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
