"""Two candidates side by side, class by class, with intervals that are paired by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from equipoise.measurement.bootstrap import draw_resamples, interval
from equipoise.runs import Figure
from equipoise.runs.predictions import Predictions

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class ClassComparison:
    """One class under both candidates; a difference is the second's value minus the first's."""

    label: str
    places: int
    """How often the data hold it."""
    recall: tuple[float, float]
    f1: tuple[float, float]
    recall_difference: Figure | None
    """None where the data do not hold the class."""
    f1_difference: Figure


@dataclass(frozen=True)
class Comparison:
    """Both candidates over all places, and over each class that occurs and has a name."""

    rows: int
    agree: float
    """Share of places that both give the same class."""
    only_first: int
    """Places that the first has right and the second wrong."""
    only_second: int
    accuracy_difference: Figure
    """Share of places that the second has right, minus the first's."""
    classes: tuple[ClassComparison, ...]
    """What the second loses most of, first."""


def compare_predictions(
    first: Predictions, second: Predictions, labels: Sequence[str], *, resamples: int, seed: int
) -> Comparison:
    """Compare two candidates that were asked the same.

    Rows are drawn with replacement, all places of a row together, and both candidates are read on
    the same draw (a paired cluster bootstrap), so a difference's interval is far narrower than the
    two figures' own.

    Args:
        labels: class names by number; a number beyond them is its own name. Where there are none, as
            for a language model whose classes are its tokens, no class is compared.

    Raises:
        ValueError: the candidates were asked about different places.
    """
    if not first.same_places(second):
        raise ValueError("the candidates were measured on different rows")
    rows = int(first.row_of.max()) + 1
    weights = _draw_weights(rows, resamples, seed)
    right = [model.predicted == model.truth for model in (first, second)]
    asked = weights @ np.bincount(first.row_of, minlength=rows)
    accuracies = [
        _share(weights @ np.bincount(first.row_of, hit, minlength=rows), asked)[:, None] for hit in right
    ]
    return Comparison(
        rows=rows,
        agree=float((first.predicted == second.predicted).mean()),
        only_first=int((right[0] & ~right[1]).sum()),
        only_second=int((right[1] & ~right[0]).sum()),
        accuracy_difference=_difference(accuracies, 0, rows),
        classes=_compare_classes(first, second, labels, weights) if labels else (),
    )


def _compare_classes(
    first: Predictions, second: Predictions, labels: Sequence[str], weights: Counts
) -> tuple[ClassComparison, ...]:
    rows = weights.shape[1]
    classes = int(max(first.truth.max(), first.predicted.max(), second.predicted.max())) + 1
    support = _summed(_tally(first.row_of, first.truth, rows, classes), weights)
    tallies = [_counts(model, rows, classes, weights) for model in (first, second)]
    recalls = [_share(hits, support) for hits, _ in tallies]
    f1s = [_share(2 * hits, support + said) for hits, said in tallies]
    found = [
        ClassComparison(
            label=labels[number] if number < len(labels) else str(number),
            places=int(support[0, number]),
            recall=(float(recalls[0][0, number]), float(recalls[1][0, number])),
            f1=(float(f1s[0][0, number]), float(f1s[1][0, number])),
            recall_difference=_difference(recalls, number, rows) if support[0, number] else None,
            f1_difference=_difference(f1s, number, rows),
        )
        for number in np.flatnonzero(support[0] + tallies[0][1][0] + tallies[1][1][0]).tolist()
    ]
    return tuple(sorted(found, key=lambda entry: (entry.f1_difference.value, entry.label)))


def record(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON values."""
    return {
        "rows": comparison.rows,
        "agree": comparison.agree,
        "only_first": comparison.only_first,
        "only_second": comparison.only_second,
        "accuracy_difference": comparison.accuracy_difference.model_dump(),
        "classes": [
            {
                "label": found.label,
                "places": found.places,
                "recall": list(found.recall),
                "f1": list(found.f1),
                "recall_difference": found.recall_difference.model_dump()
                if found.recall_difference
                else None,
                "f1_difference": found.f1_difference.model_dump(),
            }
            for found in comparison.classes
        ],
    }


def _draw_weights(rows: int, resamples: int, seed: int) -> Counts:
    """How often each row is drawn, shape (1 + resamples, rows); the first draw is the data itself."""
    draws = draw_resamples(rows, resamples, seed)
    offsets = np.arange(resamples)[:, None] * rows
    counted = np.bincount((draws + offsets).ravel(), minlength=resamples * rows).reshape(resamples, rows)
    return np.concatenate([np.ones((1, rows)), counted]).astype(np.float64)


def _tally(
    row_of: NDArray[np.int32], numbers: NDArray[np.int32], rows: int, classes: int
) -> sparse.csr_array:
    """How often each row has each class, shape (rows, classes)."""
    return sparse.csr_array((np.ones(len(numbers)), (row_of, numbers)), shape=(rows, classes))


def _counts(model: Predictions, rows: int, classes: int, weights: Counts) -> tuple[Counts, Counts]:
    """Hits and predictions of each class in each draw, both of shape (draws, classes)."""
    right = model.predicted == model.truth
    hits = _tally(model.row_of[right], model.truth[right], rows, classes)
    said = _tally(model.row_of, model.predicted, rows, classes)
    return _summed(hits, weights), _summed(said, weights)


def _summed(table: sparse.csr_array, weights: Counts) -> Counts:
    result: Counts = np.asarray((table.T @ weights.T).T)
    return result


def _share(part: Counts, whole: Counts) -> Counts:
    result: Counts = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return result


def _difference(values: Sequence[Counts], column: int, rows: int) -> Figure:
    difference = values[1][:, column] - values[0][:, column]
    return interval(float(difference[0]), difference[1:], rows)
