"""ASGI's start and end of an application."""

from __future__ import annotations

from equipoise_serving.http import Receive, Send


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Start up and shut down at once: there is nothing to do."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
