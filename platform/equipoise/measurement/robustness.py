"""The metric on corrupted input, as a share of the metric on the same clean rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.data.corruptions import CORRUPTIONS, corrupt_rows
from equipoise.measurement.bootstrap import interval
from equipoise.runs import Figure


@dataclass(frozen=True)
class CorruptedRows:
    """Corrupted texts, each with the row it comes from and the corruption it went through."""

    texts: list[str]
    rows: NDArray[np.int64]
    kinds: list[str]


@dataclass(frozen=True)
class Robustness:
    """Share of the clean metric that is kept, the worst corruption, and each one's metric."""

    share: Figure
    worst: str
    worst_metric: float
    by_corruption: dict[str, float]


def corrupt(texts: Sequence[str], *, rows: int | None, per_row: int | None, seed: int) -> CorruptedRows:
    """Corrupt a seeded sample of rows.

    Args:
        rows: rows drawn; None is all of them.
        per_row: corruptions each row goes through, in rotation so that each corruption gets the
            same number of rows; None is every corruption on every row.
    """
    rng = np.random.default_rng([seed, 1])
    chosen = np.arange(len(texts))
    if rows is not None and rows < len(texts):
        chosen = np.sort(rng.choice(len(texts), rows, replace=False))
    each = min(per_row or len(CORRUPTIONS), len(CORRUPTIONS))
    members: dict[int, list[int]] = defaultdict(list)
    for position, row in enumerate(chosen.tolist()):
        for turn in range(each):
            members[(position * each + turn) % len(CORRUPTIONS)].append(row)
    found: list[str] = []
    origin: list[int] = []
    kinds: list[str] = []
    for cell, cell_rows in sorted(members.items()):
        kind, share = CORRUPTIONS[cell]
        found += corrupt_rows([texts[row] for row in cell_rows], kind, share, seed, cell_rows)
        origin += cell_rows
        kinds += [f"{kind} {share:.0%}"] * len(cell_rows)
    return CorruptedRows(found, np.array(origin, dtype=np.int64), kinds)


def measure_robustness(
    corrupted: CorruptedRows,
    clean_predictions: NDArray[np.int64],
    labels: NDArray[np.int64],
    predict: Callable[[Sequence[str]], NDArray[np.int64]],
    *,
    resamples: int,
    seed: int,
) -> Robustness:
    """Predict the corrupted rows and hold them against the clean ones.

    Args:
        clean_predictions: label numbers for all clean rows, shape (rows,).
        predict: texts to label numbers.
    """
    truth = labels[corrupted.rows]
    hit = (predict(corrupted.texts) == truth).astype(np.float64)
    clean_hit = (clean_predictions[corrupted.rows] == truth).astype(np.float64)
    kinds = np.array(corrupted.kinds)
    by_corruption = {kind: float(hit[kinds == kind].mean()) for kind in dict.fromkeys(corrupted.kinds)}
    worst = min(by_corruption, key=lambda kind: by_corruption[kind])
    # Rows, not corrupted copies, are the independent units: copies of one row are drawn together.
    sources, position = np.unique(corrupted.rows, return_inverse=True)
    sums = np.stack([np.bincount(position, hit), np.bincount(position, clean_hit)], axis=0)
    draws = np.random.default_rng(seed).integers(0, len(sources), size=(resamples, len(sources)))
    kept, clean = sums[0][draws].sum(axis=1), sums[1][draws].sum(axis=1)
    ratios = np.divide(kept, clean, out=np.zeros_like(kept), where=clean > 0)
    point = float(hit.sum() / clean_hit.sum()) if clean_hit.sum() else 0.0
    return Robustness(interval(point, ratios, len(sources)), worst, by_corruption[worst], by_corruption)
