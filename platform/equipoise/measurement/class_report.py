"""Precision, recall and F1 of each class, with their averages and intervals, and what is confused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.measurement.bootstrap import interval, resampled_sums
from equipoise.runs import Figure
from equipoise.runs.records import Record
from equipoise.tasks import Answers
from equipoise.tasks.entities import find_entities

Counts = NDArray[np.float64]
_NAMES = ("precision", "recall", "f1")


class ClassFigures(Record):
    """One class, or an average over classes."""

    precision: Figure
    recall: Figure
    f1: Figure
    support: int
    """Times that the data hold it."""


class ClassReport(Record):
    """What the field calls a classification report; each figure over resampled rows."""

    classes: dict[str, ClassFigures]
    """The classes that occur among the truth or the predictions, in the order of the labels."""
    micro: ClassFigures
    macro: ClassFigures
    weighted: ClassFigures


class Confusion(Record):
    """A class that was taken for another."""

    truth: str
    predicted: str
    count: int


def report_classes(
    answers: Answers,
    truth: NDArray[np.int64],
    labels: Sequence[str],
    *,
    rows: int,
    draws: NDArray[np.int64],
    left_out: Sequence[str] = (),
) -> ClassReport:
    """The report over places.

    Args:
        left_out: labels that stand for nothing, such as `O`; they have no line and enter no average.
    """
    classes = len(labels)

    def count(values: NDArray[np.int64], weights: NDArray[np.bool_] | None = None) -> Counts:
        flat = None if weights is None else weights.astype(np.float64)
        found = np.bincount(answers.row_of * classes + values, flat, minlength=rows * classes)
        return found.reshape(rows, classes).astype(np.float64)

    predicted = answers.predicted
    counts = np.stack([count(truth, predicted == truth), count(predicted), count(truth)], axis=2)
    kept = [index for index, label in enumerate(labels) if label not in left_out]
    return build_report(counts[:, kept], [labels[index] for index in kept], draws)


def report_entities(
    answers: Answers,
    truth: NDArray[np.int64],
    labels: Sequence[str],
    *,
    rows: int,
    draws: NDArray[np.int64],
) -> ClassReport:
    """The report over entities: one is right where its kind and both its bounds are."""
    kinds = sorted({label.partition("-")[2] or label for label in labels if label != "O"})
    number = {kind: index for index, kind in enumerate(kinds)}
    counts = np.zeros((rows, len(kinds), 3))
    starts = np.searchsorted(answers.row_of, np.arange(rows + 1))
    predicted = answers.predicted
    for row in range(rows):
        own = slice(starts[row], starts[row + 1])
        said = set(find_entities([labels[tag] for tag in predicted[own].tolist()]))
        true = set(find_entities([labels[tag] for tag in truth[own].tolist()]))
        for column, entities in enumerate((said & true, said, true)):
            for entity in entities:
                counts[row, number[entity.kind], column] += 1
    return build_report(counts, kinds, draws)


def build_report(counts: Counts, labels: Sequence[str], draws: NDArray[np.int64]) -> ClassReport:
    """From (right, predicted, true) counts of shape (rows, classes, 3)."""
    rows, classes, _ = counts.shape
    sums = counts.sum(axis=0)
    drawn = resampled_sums(counts.reshape(rows, -1), draws).reshape(len(draws), classes, 3)
    support = sums[:, 2].astype(int)
    single, single_drawn = _scores(sums), _scores(drawn)
    occur = sums[:, 1:].sum(axis=1) > 0
    micro, micro_drawn = _scores(sums.sum(axis=0)), _scores(drawn.sum(axis=1))
    occur_drawn = (drawn[..., 1:].sum(axis=-1) > 0)[..., None]
    macro = single[occur].mean(axis=0) if occur.any() else np.zeros(3)
    macro_drawn = (single_drawn * occur_drawn).sum(axis=1) / np.maximum(occur_drawn.sum(axis=1), 1)
    weighted = (single * sums[:, 2:]).sum(axis=0) / max(sums[:, 2].sum(), 1)
    weighted_drawn = (single_drawn * drawn[..., 2:]).sum(axis=1) / np.maximum(
        drawn[..., 2].sum(axis=1, keepdims=True), 1
    )

    def figures(point: Counts, resampled: Counts, times: int) -> ClassFigures:
        made = {
            name: interval(float(point[column]), resampled[:, column], rows)
            for column, name in enumerate(_NAMES)
        }
        return ClassFigures(**made, support=times)

    total = int(support.sum())
    return ClassReport(
        classes={
            label: figures(single[index], single_drawn[:, index], int(support[index]))
            for index, label in enumerate(labels)
            if occur[index]
        },
        micro=figures(micro, micro_drawn, total),
        macro=figures(macro, macro_drawn, total),
        weighted=figures(weighted, weighted_drawn, total),
    )


def find_confusions(
    predicted: NDArray[np.int64], truth: NDArray[np.int64], labels: Sequence[str], most: int
) -> list[Confusion]:
    """The pairs of classes that are taken for each other most often, most frequent first."""
    wrong = predicted != truth
    pairs, counts = np.unique(truth[wrong] * len(labels) + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [
        Confusion(
            truth=labels[pairs[index] // len(labels)],
            predicted=labels[pairs[index] % len(labels)],
            count=int(counts[index]),
        )
        for index in order.tolist()
    ]


def top_share(answers: Answers, truth: NDArray[np.int64], places: int) -> NDArray[np.bool_]:
    """Whether the true class is among the `places` best, at each place; shape (places,)."""
    own = answers.logits[np.arange(len(truth)), truth]
    return np.asarray((answers.logits > own[:, None]).sum(axis=1) < places)


def _scores(counts: Counts) -> Counts:
    """(precision, recall, F1) from (right, predicted, true) on the last axis; 0 where undefined."""
    right, said, true = counts[..., 0], counts[..., 1], counts[..., 2]

    def ratio(top: Counts, bottom: Counts) -> Counts:
        found: Counts = np.divide(top, bottom, out=np.zeros_like(np.asarray(top)), where=bottom > 0)
        return found

    return np.stack([ratio(right, said), ratio(right, true), ratio(2 * right, said + true)], axis=-1)
