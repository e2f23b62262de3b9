"""What a service answers while no bundle is given to it: alive, not ready, and what is missing."""

from __future__ import annotations

from equipoise_serving.errors import RequestError
from equipoise_serving.http import Receive, Scope, Send, error_reply, json_reply, send_reply
from equipoise_serving.lifespan import answer_lifespan

_LIVE = ("/healthz", "/v2/health/live")


class Waiting:
    """A deployment without a model."""

    def __serve_build_asgi_app__(self) -> WaitingGateway:
        return WaitingGateway()


class WaitingGateway:
    """Answers HTTP where there is no model."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection scope."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["path"].removeprefix(scope.get("root_path", "")) in _LIVE:
            await send_reply(send, json_reply({"status": "ok"}), head=scope["method"] == "HEAD")
        else:
            missing = RequestError(
                503,
                "no_bundle",
                "no bundle is served yet; give one in the application's args as bundle "
                "(in the Helm chart: serving.bundle)",
            )
            await send_reply(send, error_reply(missing), head=scope["method"] == "HEAD")
