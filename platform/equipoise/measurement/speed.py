"""Latency and throughput of a Predictor on one pinned thread, tokenizer included."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise import hardware
from equipoise.engines import Predictor
from equipoise.engines.buckets import LengthBuckets
from equipoise.measurement.bootstrap import draw_resamples, interval, statistic_figure
from equipoise.measurement.reference import Reference
from equipoise.measurement.stopwatch import Lap, Stopwatch, opened_stopwatch
from equipoise.runs import Speed

_WARM_UP = 10
_TAKES = 3
_BLOCK_CALLS, _BLOCK_S = 20, 0.5
"""Calls, or seconds, between two looks at the reference."""
_COLD_BELOW_S = 0.05
"""A call shorter than this feels the caches that the reference left; the first after it does not count."""
_MOST_CORRECTED = 1.5
"""Beyond it the reference says that the machine is disturbed, and no longer by how much a model is."""
_TRIED_BATCHES = 2
_WAITING_BATCHES = 4
_GIVEN_UP = 0.97
"""Half a batch that carries less than this share of what the whole one does ends the search for the best."""


@contextlib.contextmanager
def pinned_to_one_core() -> Iterator[None]:
    """Keep every thread of this process, and those it starts, on the last core it may use."""
    cores = hardware.usable_cores()
    hardware.pin_to(cores[-1:])
    try:
        yield
    finally:
        hardware.pin_to(cores)


def measure_speed(
    predictor: Predictor,
    inputs: Sequence[Any],
    *,
    requests: int,
    batches: int,
    max_batch_size: int,
    max_batch_tokens: int,
    p99_ms: float | None,
    model_bytes: int,
    resamples: int,
    seed: int,
) -> Speed:
    """Time single requests and batches drawn from the data as it comes, at its own lengths.

    The caller holds the machine's measured slot and has pinned the process. Times are the process's own
    (`stopwatch`), divided by how much slower than calm the reference beside them ran (`reference`), and by
    1.5 at most.
    Batches are those that a replica would take from a full queue. Percentiles and throughput carry
    bootstrap intervals over requests and over batches.

    Args:
        requests: single requests that count.
        batches: batches that count, of the size that carries most.
        max_batch_size: rows of the largest batch tried; then its half, as long as that carries as much.
        max_batch_tokens: padded tokens of a batch at most.
        p99_ms: no batch takes longer, where a smaller one does not; None for no such bound.
        model_bytes: of the model's files, which the reference is as large as.
    """
    rng = np.random.default_rng([seed, 3])
    singles = [[inputs[row]] for row in rng.integers(0, len(inputs), requests + _WARM_UP)]
    with opened_stopwatch() as stopwatch:
        timer = _Timer(stopwatch, Reference(model_bytes))
        for single in singles[:_WARM_UP]:
            predictor.predict(single)
        for single in singles[_WARM_UP:]:
            timer.time(partial(predictor.predict, single))
        alone = timer.finish()
        size = _best_batch(predictor, inputs, timer, max_batch_size, max_batch_tokens, p99_ms, rng)
        queue = queued_batches(predictor, inputs, size, max_batch_tokens, rng)
        predictor.predict(next(queue))
        rows = np.empty(batches)
        for index in range(batches):
            batch = next(queue)
            rows[index] = len(batch)
            timer.time(partial(predictor.predict, batch))
        together = timer.finish()
    calm_s = timer.reference.calm_s([*alone.takes_s, *together.takes_s])
    latencies_ms, batch_s = alone.corrected_s(calm_s) * 1e3, together.corrected_s(calm_s)
    draws = draw_resamples(len(latencies_ms), resamples, seed)
    rate_draws = draw_resamples(len(batch_s), resamples, seed)
    rates = rows[rate_draws].sum(axis=1) / batch_s[rate_draws].sum(axis=1)
    wall_s = np.array([lap.wall_s for lap in alone.laps])
    return Speed(
        latency_p50_ms=statistic_figure(latencies_ms, lambda v: np.percentile(v, 50, axis=-1), draws),
        latency_p99_ms=statistic_figure(latencies_ms, lambda v: np.percentile(v, 99, axis=-1), draws),
        throughput_rps=interval(float(rows.sum() / batch_s.sum()), rates, len(batch_s)),
        batch_size=max(1, round(float(rows.mean()))),
        threads=1,
        wall_p50_ms=float(np.median(wall_s)) * 1e3,
        slowdown=float(np.median(alone.slowdowns(calm_s))),
        waited_share=1 - sum(lap.own_s for lap in alone.laps) / float(wall_s.sum()),
    )


@dataclass(frozen=True)
class Timed:
    """Laps, and the takes of the reference between the blocks that they came in."""

    laps: list[Lap]
    block_of: list[int]
    takes_s: list[float]

    def slowdowns(self, calm_s: float) -> NDArray[np.float64]:
        """How much slower than calm the reference ran about each lap, at least 1."""
        takes = np.array(self.takes_s).reshape(-1, _TAKES)
        about = np.array([np.median(takes[block : block + 2]) for block in range(len(takes) - 1)])
        found: NDArray[np.float64] = np.maximum(1.0, about[self.block_of] / calm_s)
        return found

    def corrected_s(self, calm_s: float) -> NDArray[np.float64]:
        """Own seconds of each lap on a calm machine."""
        own_s: NDArray[np.float64] = np.array([lap.own_s for lap in self.laps])
        return own_s / np.minimum(self.slowdowns(calm_s), _MOST_CORRECTED)


@dataclass
class _Timer:
    """Times calls in blocks, with takes of the reference before, between and after them."""

    stopwatch: Stopwatch
    reference: Reference
    _laps: list[Lap] = field(default_factory=list)
    _block_of: list[int] = field(default_factory=list)
    _takes_s: list[float] = field(default_factory=list)
    _in_block: int = 0
    _block_s: float = 0.0
    _last_s: float = 0.0

    def time(self, call: Callable[[], object]) -> None:
        if not self._takes_s or self._in_block >= _BLOCK_CALLS or self._block_s >= _BLOCK_S:
            self._take()
            self._in_block, self._block_s = 0, 0.0
            if self._last_s < _COLD_BELOW_S:
                call()
        lap = self.stopwatch.time(call)
        self._laps.append(lap)
        self._block_of.append(len(self._takes_s) // _TAKES - 1)
        self._in_block += 1
        self._block_s += lap.wall_s
        self._last_s = lap.wall_s

    def finish(self) -> Timed:
        """What was timed since the last call of this."""
        self._take()
        found = Timed(self._laps, self._block_of, self._takes_s)
        self._laps, self._block_of, self._takes_s = [], [], []
        self._in_block, self._block_s = 0, 0.0
        return found

    def _take(self) -> None:
        self._takes_s.extend(self.reference.take(self.stopwatch) for _ in range(_TAKES))


def _best_batch(
    predictor: Predictor,
    inputs: Sequence[Any],
    timer: _Timer,
    max_batch_size: int,
    max_batch_tokens: int,
    p99_ms: float | None,
    rng: np.random.Generator,
) -> int:
    """The batch size that carries most rows a second among those that take no longer than `p99_ms`."""
    best, best_rps, size = 1, 0.0, max_batch_size
    while size > 1:
        queue = queued_batches(predictor, inputs, size, max_batch_tokens, rng)
        predictor.predict(next(queue))  # an engine prepares itself for a size that it has not seen
        laps = []
        for batch in (next(queue) for _ in range(_TRIED_BATCHES)):
            lap = timer.stopwatch.time(partial(predictor.predict, batch))
            laps.append((len(batch), lap.own_s))
        rps = sum(rows for rows, _ in laps) / sum(seconds for _, seconds in laps)
        if p99_ms is None or max(seconds for _, seconds in laps) * 1e3 <= p99_ms:
            if rps < best_rps * _GIVEN_UP:
                break
            if rps > best_rps:
                best, best_rps = size, rps
        size //= 2
    return best


def queued_batches(
    predictor: Predictor, inputs: Sequence[Any], size: int, max_tokens: int, rng: np.random.Generator
) -> Iterator[list[Any]]:
    """Endless batches of rows of like length, as a replica takes them from a queue that never empties.

    Args:
        size: rows of a batch at most.
        max_tokens: padded tokens of a batch at most.
    """
    waiting: LengthBuckets[int] = LengthBuckets()
    held = clock = 0
    while True:
        drawn = rng.integers(0, len(inputs), size * _WAITING_BATCHES - held)
        for row, tokens in zip(
            drawn.tolist(), predictor.task.lengths([inputs[row] for row in drawn]).tolist(), strict=True
        ):
            waiting.add(row, tokens, clock)
            clock += 1
        batch = waiting.take(size, max_tokens)
        held = size * _WAITING_BATCHES - len(batch)
        yield [inputs[row] for row in batch]
