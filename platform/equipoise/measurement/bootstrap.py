"""95% bootstrap intervals (Efron's percentile method), vectorized over resamples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from equipoise.runs import Figure

_CONFIDENCE = (2.5, 97.5)


def draw_resamples(rows: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Row numbers drawn with replacement, shape (resamples, rows); shared by paired figures."""
    return np.random.default_rng(seed).integers(0, rows, size=(resamples, rows), dtype=np.int64)


def resampled_sums(counts: NDArray[np.float64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums of per-row counts (rows, k) over each resample, shape (resamples, k)."""
    rows = len(counts)
    found = np.empty((len(draws), counts.shape[1]))
    for index, drawn in enumerate(draws):
        found[index] = np.bincount(drawn, minlength=rows) @ counts
    return found


def sums_figure(
    counts: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    draws: NDArray[np.int64],
) -> Figure:
    """A statistic of summed counts, shape (..., k) to (...), with its interval over rows."""
    point = float(statistic(counts.sum(axis=0)[None])[0])
    return interval(point, statistic(resampled_sums(counts, draws)), len(counts))


def statistic_figure(
    values: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    draws: NDArray[np.int64],
) -> Figure:
    """A statistic over the last axis (median, a percentile) with its interval."""
    point = float(statistic(values[None, :])[0])
    return interval(point, statistic(values[draws]), len(values))


def interval(point: float, resampled: NDArray[np.float64], rows: int) -> Figure:
    """A figure from its value on the rows and on each resample."""
    low, high = np.percentile(resampled, _CONFIDENCE)
    return Figure(value=point, low=float(low), high=float(high), n=rows)
