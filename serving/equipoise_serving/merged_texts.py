"""Several texts under way as one sequence of parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator


async def merge_texts(
    sources: list[AsyncGenerator[str, None]],
) -> AsyncGenerator[tuple[int, str | None], None]:
    """The texts of all sources as they come, each with its source's number, and None where one ends."""
    queue: asyncio.Queue[tuple[int, str | None] | Exception] = asyncio.Queue()

    async def drain(index: int, source: AsyncIterator[str]) -> None:
        try:
            async for part in source:
                queue.put_nowait((index, part))
            queue.put_nowait((index, None))
        except Exception as error:  # noqa: BLE001 - handed to who reads
            queue.put_nowait(error)

    tasks = [asyncio.ensure_future(drain(index, source)) for index, source in enumerate(sources)]
    left = len(tasks)
    try:
        while left:
            received = await queue.get()
            if isinstance(received, Exception):
                raise received
            left -= received[1] is None
            yield received
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for source in sources:
            await source.aclose()
