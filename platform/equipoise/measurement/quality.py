"""What a model is worth: the task's metric, macro-F1, calibration, paired drop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.measurement.bootstrap import draw_resamples, interval, resampled_sums, sums_figure
from equipoise.measurement.calibration import calibration_error
from equipoise.runs import Figure, Quality
from equipoise.tasks import IGNORED, Answers, Task


def find_truth(
    task: Task, inputs: Sequence[Any], labels: Sequence[Any], batch_size: int = 256
) -> NDArray[np.int64]:
    """True class at each place of some rows, shape (places,)."""
    parts = []
    for start in range(0, len(inputs), batch_size):
        rows = slice(start, start + batch_size)
        targets = task.targets(task.encode(inputs[rows]), labels[rows])
        parts.append(targets[targets != IGNORED])
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def measure_quality(
    answers: Answers,
    truth: NDArray[np.int64],
    *,
    task: Task,
    rows: int,
    temperature: float,
    resamples: int,
    seed: int,
) -> Quality:
    """Figures of the answers at each place against the truth there, each with its interval over rows."""
    draws = draw_resamples(rows, resamples, seed)
    return Quality(
        metric_name=task.metric_name,
        metric=sums_figure(task.tally(answers, truth, rows), task.metric, draws),
        macro_f1=macro_f1(answers, truth, len(task.labels), rows, draws) if task.labels else None,
        calibration_error=calibration_error(answers, truth, temperature, rows, draws),
        temperature=temperature,
    )


def macro_f1(
    answers: Answers, truth: NDArray[np.int64], classes: int, rows: int, draws: NDArray[np.int64]
) -> Figure:
    """Unweighted mean of the F1 of the classes that occur among the truth or the predictions."""

    def count(values: NDArray[np.int64], places: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        flat = answers.row_of * classes + values
        weights = None if places is None else places.astype(np.float64)
        return np.bincount(flat, weights, minlength=rows * classes).reshape(rows, classes).astype(np.float64)

    predicted = answers.predicted
    hits = count(truth, predicted == truth)
    seen = count(truth) + count(predicted)

    def score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        hit, saw = sums[..., :classes], sums[..., classes:]
        f1 = np.divide(2 * hit, saw, out=np.zeros_like(saw), where=saw > 0)
        result: NDArray[np.float64] = f1.sum(axis=-1) / np.maximum((saw > 0).sum(axis=-1), 1)
        return result

    return sums_figure(np.concatenate([hits, seen], axis=1), score, draws)


def paired_drop(
    task: Task,
    teacher: Answers,
    candidate: Answers,
    truth: NDArray[np.int64],
    *,
    rows: int,
    resamples: int,
    seed: int,
) -> Figure:
    """Teacher's metric minus candidate's over the same rows, with the paired interval."""
    draws = draw_resamples(rows, resamples, seed)
    kept, lost = (task.tally(answers, truth, rows) for answers in (teacher, candidate))
    difference = task.metric(resampled_sums(kept, draws)) - task.metric(resampled_sums(lost, draws))
    point = float(task.metric(kept.sum(axis=0)) - task.metric(lost.sum(axis=0)))
    return interval(point, difference, rows)
