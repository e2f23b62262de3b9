"""Server-sent events over bare ASGI, for as long as there is a client that reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import TypeVar

from equipoise_serving.http import ClientGoneError, Receive, Send

_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_Found = TypeVar("_Found")


async def send_events(
    parts: AsyncGenerator[bytes, None], receive: Receive, send: Send, *, timeout_s: float, late: bytes
) -> None:
    """Send what is written as it comes; a client that leaves, or reads nothing for long, ends it.

    Args:
        timeout_s: longest wait for each part, and for the client to take it.
        late: JSON of the event that says that this was over.
    """

    async def pass_on() -> None:
        async with aclosing(parts):
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            while True:
                async with asyncio.timeout(timeout_s):
                    part = await anext(parts, None)
                    if part is None:
                        break
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    try:
        await while_there(receive, pass_on())
    except ClientGoneError:
        return
    except TimeoutError:
        await send({"type": "http.response.body", "body": b"data: " + late + b"\n\n"})


async def while_there(receive: Receive, work: Coroutine[None, None, _Found]) -> _Found:
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
