"""Latency and throughput of a Predictor on one pinned thread, tokenizer included."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np

from equipoise import hardware
from equipoise.engines import Predictor
from equipoise.measurement.bootstrap import draw_resamples, statistic_figure
from equipoise.runs import Figure, Speed

_WARM_UP = 10


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
    texts: Sequence[str],
    *,
    requests: int,
    batches: int,
    batch_size: int,
    resamples: int,
    seed: int,
) -> Speed:
    """Time single requests and batches drawn from the data as it comes, at its own lengths.

    The caller holds the machine's measured slot and has pinned the process. Percentiles and
    throughput carry bootstrap intervals over requests and over batches.
    """
    rng = np.random.default_rng([seed, 3])
    singles = [[texts[row]] for row in rng.integers(0, len(texts), requests + _WARM_UP)]
    groups = [[texts[row] for row in rng.integers(0, len(texts), batch_size)] for _ in range(batches + 1)]
    latencies_ms = _time(predictor, singles)[_WARM_UP:] * 1e3
    batch_s = _time(predictor, groups)[1:]
    draws = draw_resamples(len(latencies_ms), resamples, seed)
    rate_draws = draw_resamples(len(batch_s), resamples, seed)
    rates = batch_size / batch_s[rate_draws].mean(axis=1)
    low, high = np.percentile(rates, (2.5, 97.5))
    return Speed(
        latency_p50_ms=statistic_figure(latencies_ms, lambda v: np.percentile(v, 50, axis=-1), draws),
        latency_p99_ms=statistic_figure(latencies_ms, lambda v: np.percentile(v, 99, axis=-1), draws),
        throughput_rps=Figure(
            value=float(batch_size / batch_s.mean()), low=float(low), high=float(high), n=len(batch_s)
        ),
        batch_size=batch_size,
        threads=1,
    )


def _time(predictor: Predictor, groups: Sequence[list[str]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    seconds = np.empty(len(groups))
    for index, group in enumerate(groups):
        start = time.perf_counter()
        predictor.predict(group)
        seconds[index] = time.perf_counter() - start
    return seconds
