"""Adaptive batches: rows collect while the engine works, and nothing waits for an idle engine.

The engine's work decides both the size and the wait of a batch. An idle engine starts at once with
whatever is there, so a request at low load waits for nothing; a busy one finds at its return what
arrived meanwhile, so that batches grow with the queue up to their budget. A timer that holds rows
back (the usual `batch_wait_timeout`) could only add latency: the row that it waits for gets into
the next batch anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from equipoise.engines.buckets import LengthBuckets
from equipoise_serving.errors import RequestError

Answer = dict[str, Any]
Run = Callable[[list[Any]], tuple[list[Answer], float]]
"""Runs one batch in the engine's thread: answers in order, and the seconds that it took."""

_SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request got, and what it took."""

    answers: list[Answer]
    queued_s: float
    """From its arrival until the engine took its last row."""
    busy_s: float
    """Its rows' share of the batches that they were in, in engine seconds."""


@dataclass(slots=True)
class _Request:
    future: asyncio.Future[Answered]
    arrived: float
    answers: list[Answer | None]
    missing: int
    queued_s: float = 0.0
    busy_s: float = 0.0


@dataclass(slots=True)
class _Row:
    value: Any
    tokens: int
    request: _Request
    position: int


class Batcher:
    """Puts rows of many requests through one engine thread.

    Lives on one event loop; only `run` is called off it.

    Args:
        run: one batch through the model.
        count_tokens: about how long a row is, in tokens; cheap, as it runs on the event loop.
        max_rows: most rows a batch has.
        max_tokens: most padded tokens a batch has; a longer single row runs alone.
        max_wait_s: what comes when the rows ahead would take longer than this is refused.
        max_waiting_rows: rows that may wait, however fast the engine is.
        thread: where the engine runs; one thread, because an engine holds one request.
        observe: called with the rows and the seconds of each batch.
    """

    def __init__(
        self,
        run: Run,
        count_tokens: Callable[[Any], int],
        *,
        max_rows: int,
        max_tokens: int,
        max_wait_s: float,
        max_waiting_rows: int,
        thread: ThreadPoolExecutor,
        observe: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:
        self._run = run
        self._count_tokens = count_tokens
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._max_wait_s = max_wait_s
        self._max_waiting_rows = max_waiting_rows
        self._thread = thread
        self._observe = observe
        self._waiting: LengthBuckets[_Row] = LengthBuckets()
        self._waiting_rows = 0
        self._waiting_tokens = 0
        self._seconds_per_token = 0.0
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting_rows(self) -> int:
        """Rows that no batch has taken yet."""
        return self._waiting_rows

    @property
    def expected_wait_s(self) -> float:
        """How long the engine will need for what waits, by the speed of its last batches."""
        return self._waiting_tokens * self._seconds_per_token

    async def submit(self, values: Sequence[Any]) -> Answered:
        """Answers to some rows, in order, each out of whichever batch it fits in.

        A caller that is cancelled takes its waiting rows out of the queue.

        Raises:
            RequestError: 429 `overloaded`, at once.
            Exception: whatever `run` raised for a batch that held one of the rows.
        """
        tokens = [max(1, self._count_tokens(value)) for value in values]
        wait_s = self.expected_wait_s
        # An idle engine takes anything; a request that cannot ever fit would be told to come again for ever.
        if self._waiting_rows and (
            wait_s > self._max_wait_s or self._waiting_rows + len(values) > self._max_waiting_rows
        ):
            raise overloaded(wait_s)
        loop = asyncio.get_running_loop()
        request = _Request(loop.create_future(), loop.time(), [None] * len(values), len(values))
        for position, (value, count) in enumerate(zip(values, tokens, strict=True)):
            self._waiting.add(_Row(value, count, request, position), count, request.arrived)
        self._waiting_rows += len(values)
        self._waiting_tokens += sum(tokens)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await request.future

    async def _work(self) -> None:
        try:
            while rows := self._next_batch():
                await self._run_batch(rows)
        finally:
            self._worker = None

    async def _run_batch(self, rows: list[_Row]) -> None:
        loop = asyncio.get_running_loop()
        taken_at = loop.time()
        try:
            answers, seconds = await loop.run_in_executor(
                self._thread, self._run, [row.value for row in rows]
            )
            self._learn(rows, seconds)
            self._observe(len(rows), seconds)
            _deliver(rows, answers, taken_at, seconds)
        except Exception as error:  # noqa: BLE001 - engines raise types of their own; the requests get it
            for row in rows:
                if not row.request.future.done():
                    row.request.future.set_exception(error)

    def _next_batch(self) -> list[_Row]:
        """Rows of the next batch that somebody still waits for."""
        while taken := self._waiting.take(self._max_rows, self._max_tokens):
            self._waiting_rows -= len(taken)
            self._waiting_tokens -= sum(row.tokens for row in taken)
            wanted = [row for row in taken if not row.request.future.done()]
            if wanted:
                return wanted
        return []

    def _learn(self, rows: list[_Row], seconds: float) -> None:
        latest = seconds / max(1, sum(row.tokens for row in rows))
        held = self._seconds_per_token
        self._seconds_per_token = latest if not held else held + _SMOOTHING * (latest - held)


def overloaded(wait_s: float) -> RequestError:
    """The refusal of a full queue, with the whole seconds after which to come again."""
    after = str(max(1, round(wait_s))).encode()
    return RequestError(429, "overloaded", "too much is waiting already", ((b"retry-after", after),))


def count_text_tokens(text: str, max_tokens: int) -> int:
    """About the tokens of a text, without a tokenizer: words and the two special ones.

    Where there are few spaces (Chinese, one endless word) it is a share of the characters.
    """
    words = text.count(" ", 0, 8 * max_tokens) + 3
    return min(max_tokens, max(words, len(text) // 6))


def count_one(value: object) -> int:
    """The cost of an input that is as large as any other."""
    del value
    return 1


def _deliver(rows: list[_Row], answers: list[Answer], taken_at: float, seconds: float) -> None:
    tokens = sum(row.tokens for row in rows)
    for row, answer in zip(rows, answers, strict=True):
        request = row.request
        request.answers[row.position] = answer
        request.busy_s += seconds * row.tokens / tokens
        request.queued_s = max(request.queued_s, taken_at - request.arrived)
        request.missing -= 1
        if request.missing == 0 and not request.future.done():
            found = [answer for answer in request.answers if answer is not None]
            request.future.set_result(Answered(found, request.queued_s, request.busy_s))
