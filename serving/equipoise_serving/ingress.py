"""What stands before Serve's own HTTP code in each replica.

Serve takes orders from request headers: `x-request-timeout-seconds` lifts or sets its timeout,
`serve_multiplexed_model_id` is decoded as UTF-8 whatever it holds, and an `x-request-id` that is no
UTF-8 ends in an exception. Clients have no business there, so none of it gets through.
"""

from __future__ import annotations

import re

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

IMPORT_PATH = "equipoise_serving.ingress:middlewares"
REQUEST_ID = b"x-request-id"
_TAKEN = re.compile(rb"[!-~]{1,128}")
_WITHHELD = frozenset(
    {
        b"x-request-timeout-seconds",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
        b"x-session-id",
        b"x_session_id",
    }
)
# The gateway reads the body and watches the clock itself. Without this header Serve starts two more
# tasks for each request, one of them only to watch for a client that leaves.
_NO_WATCH = (b"x-request-disconnect-disabled", b"?1")


def middlewares() -> list[Middleware]:
    """What `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` points Serve to."""
    return [Middleware(Ingress)]


class Ingress:
    """Takes out of a request what Serve would obey; keeps a request id only where it is plain ASCII."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection scope."""
        if "headers" in scope:
            scope["headers"] = clean_headers(scope["headers"])
        await self._app(scope, receive, send)


def clean_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that may reach Serve; of several request ids the first that is well-formed."""
    kept = [_NO_WATCH]
    has_id = False
    for name, value in headers:
        if name == REQUEST_ID:
            if has_id or not _TAKEN.fullmatch(value):
                continue
            has_id = True
        elif name in _WITHHELD or name == _NO_WATCH[0]:
            continue
        kept.append((name, value))
    return kept
