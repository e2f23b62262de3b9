"""The texts of many callers through one batch that takes its steps in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from equipoise.engines.generation import GenerationParams, Token
from equipoise.engines.writing import Tell, Writing

_Received = Token | Exception


class Batch(Protocol):
    """Texts that take steps together; `add` and a `cancelled` flag may come from other threads."""

    max_length: int
    """Longest prompt and answer together, in tokens."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or waits."""
        ...

    @property
    def waiting(self) -> int:
        """Texts that nothing was read of yet."""
        ...

    def add(self, ids: Sequence[int], params: GenerationParams, tell: Tell) -> Writing:
        """Another text; its first token comes with one of the next steps.

        Raises:
            ValueError: there is no token to go on from, or no room behind them.
        """
        ...

    def step(self) -> float:
        """A token for each text under way, and a part of a waiting prompt; returns the seconds taken."""
        ...

    def clear(self) -> list[Writing]:
        """Forget every text, after a step that failed; returns them."""
        ...


class BatchedGeneration:
    """Writes for many at once; lives on one event loop.

    Args:
        batch: takes the steps.
        end_ids: tokens that end a text by the model's own configs.
        observe: called on the event loop with the texts that ended at a step and the seconds it took.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        end_ids: Sequence[int] = (),
        observe: Callable[[int, float], None] = lambda texts, seconds: None,
    ) -> None:
        self._batch = batch
        self.max_length = batch.max_length
        self._end_ids = tuple(end_ids)
        self._observe = observe
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generation")
        self._worker: asyncio.Task[None] | None = None
        self._told: list[tuple[asyncio.Queue[_Received], Token]] = []
        self._queues: dict[Writing, asyncio.Queue[_Received]] = {}

    @property
    def waiting(self) -> int:
        """Texts that nothing was read of yet."""
        return self._batch.waiting

    def stop_ids(self, end_id: int | None) -> tuple[int, ...]:
        """Tokens that end a text: this one, and those that the model's own configs name."""
        return tuple(sorted({*self._end_ids, *(() if end_id is None else (end_id,))}))

    async def generate(self, ids: Sequence[int], params: GenerationParams) -> AsyncGenerator[Token, None]:
        """Tokens after `ids`, each as soon as its step is done; closing the iterator frees its slot.

        Raises:
            ValueError: there is no token to go on from, or no room behind them.
            Exception: whatever the model raised at a step.
        """
        queue: asyncio.Queue[_Received] = asyncio.Queue()
        writing = self._batch.add(ids, params, lambda token: self._told.append((queue, token)))
        self._queues[writing] = queue
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        try:
            while True:
                received = await queue.get()
                if isinstance(received, Exception):
                    raise received
                yield received
                if received.finish is not None:
                    return
        finally:
            # Read at the next step; of one that is finished nobody looks at it any more.
            writing.cancelled = True
            del self._queues[writing]

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self._batch.is_idle:
                try:
                    seconds = await loop.run_in_executor(self._thread, self._batch.step)
                except Exception as error:  # noqa: BLE001 - whatever it is, those under way get it
                    self._told.clear()
                    for writing in self._batch.clear():
                        if writing in self._queues:
                            self._queues[writing].put_nowait(error)
                    continue
                told, self._told = self._told, []
                for queue, token in told:
                    queue.put_nowait(token)
                self._observe(sum(token.finish is not None for _, token in told), seconds)
        finally:
            self._worker = None
