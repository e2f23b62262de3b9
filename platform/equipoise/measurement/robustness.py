"""The metric on corrupted input, as a share of the metric on the same clean rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.data import Layout, corrupt_rows, corruptions_of, with_prompt
from equipoise.engines import Predictor
from equipoise.measurement.bootstrap import draw_resamples, interval, resampled_sums
from equipoise.measurement.quality import find_truth
from equipoise.runs import Figure


@dataclass(frozen=True)
class CorruptedRows:
    """Corrupted inputs, each with the row it comes from and the corruption it went through.

    `references` are all rows as they were before, where those are not the data's own: of a language model,
    a text that has no prompt gives its first half as one, and what is scored is its second.
    """

    inputs: list[Any]
    rows: NDArray[np.int64]
    kinds: list[str]
    references: list[Any] | None = None


@dataclass(frozen=True)
class Robustness:
    """Share of the clean metric that is kept, the worst corruption, and each one's metric."""

    share: Figure
    worst: str
    worst_metric: float
    by_corruption: dict[str, float]


def corrupt(
    inputs: Sequence[Any], *, layout: Layout, rows: int | None, per_row: int | None, seed: int
) -> CorruptedRows:
    """Corrupt a seeded sample of rows.

    Args:
        rows: rows drawn; None is all of them.
        per_row: corruptions each row goes through, in rotation so that each corruption gets the
            same number of rows; None is every corruption on every row.
    """
    references = None
    if layout == "prompt":
        inputs, given = [with_prompt(value) for value in inputs], inputs
        references = inputs if inputs != list(given) else None
    rng = np.random.default_rng([seed, 1])
    chosen = np.arange(len(inputs))
    if rows is not None and rows < len(inputs):
        chosen = np.sort(rng.choice(len(inputs), rows, replace=False))
    corruptions = corruptions_of(layout)
    each = min(per_row or len(corruptions), len(corruptions))
    members: dict[int, list[int]] = defaultdict(list)
    for position, row in enumerate(chosen.tolist()):
        for turn in range(each):
            members[(position * each + turn) % len(corruptions)].append(row)
    found: list[Any] = []
    origin: list[int] = []
    kinds: list[str] = []
    for cell, cell_rows in sorted(members.items()):
        kind, share = corruptions[cell]
        found += corrupt_rows([inputs[row] for row in cell_rows], kind, share, seed, cell_rows)
        origin += cell_rows
        kinds += [f"{kind} {share:.0%}"] * len(cell_rows)
    return CorruptedRows(found, np.array(origin, dtype=np.int64), kinds, references)


def measure_robustness(
    corrupted: CorruptedRows,
    predictor: Predictor,
    clean: NDArray[np.float64],
    labels: Sequence[Any],
    *,
    resamples: int,
    seed: int,
) -> Robustness:
    """Run the corrupted rows and hold them against the clean ones.

    Args:
        clean: the task's tally of all clean rows, shape (rows, counts).
        labels: of all clean rows.
    """
    task = predictor.task
    if corrupted.references is not None:
        clean = _tally_references(predictor, corrupted, labels)
    truth = find_truth(task, corrupted.inputs, [labels[row] for row in corrupted.rows])
    tally = task.tally(predictor.answers(corrupted.inputs), truth, len(corrupted.inputs))
    kinds = np.array(corrupted.kinds)
    by_corruption = {
        kind: float(task.metric(tally[kinds == kind].sum(axis=0))) for kind in dict.fromkeys(corrupted.kinds)
    }
    worst = min(by_corruption, key=lambda kind: by_corruption[kind])
    # Rows, not corrupted copies, are the independent units: copies of one row are drawn together.
    sources, position = np.unique(corrupted.rows, return_inverse=True)
    kept = np.zeros((len(sources), tally.shape[1]))
    before = np.zeros_like(kept)
    np.add.at(kept, position, tally)
    np.add.at(before, position, clean[corrupted.rows])
    draws = draw_resamples(len(sources), resamples, seed)
    reference = task.metric(resampled_sums(before, draws))
    ratios = np.divide(
        task.metric(resampled_sums(kept, draws)), reference, out=np.zeros_like(reference), where=reference > 0
    )
    whole = float(task.metric(before.sum(axis=0)))
    point = float(task.metric(kept.sum(axis=0))) / whole if whole else 0.0
    return Robustness(interval(point, ratios, len(sources)), worst, by_corruption[worst], by_corruption)


def _tally_references(
    predictor: Predictor, corrupted: CorruptedRows, labels: Sequence[Any]
) -> NDArray[np.float64]:
    """The task's tally of the rows that were drawn, as they were before; zero for the others."""
    task = predictor.task
    drawn = np.unique(corrupted.rows)
    references = corrupted.references or []
    inputs = [references[row] for row in drawn.tolist()]
    truth = find_truth(task, inputs, [labels[row] for row in drawn.tolist()])
    found = task.tally(predictor.answers(inputs), truth, len(inputs))
    tally = np.zeros((len(references), found.shape[1]))
    tally[drawn] = found
    return tally
