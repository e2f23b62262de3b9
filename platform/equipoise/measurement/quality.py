"""What a classifier is worth: metric, macro-F1, calibration, paired drop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.measurement.bootstrap import draw_resamples, interval, mean_figure
from equipoise.measurement.calibration import calibration_error
from equipoise.runs import Figure, Quality


def measure_quality(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    metric_name: str,
    temperature: float,
    resamples: int,
    seed: int,
) -> Quality:
    """Figures of logits (rows, labels) against labels (rows,), each with its interval."""
    draws = draw_resamples(len(labels), resamples, seed)
    predicted = logits.argmax(axis=1)
    return Quality(
        metric_name=metric_name,
        metric=mean_figure((predicted == labels).astype(np.float64), draws),
        macro_f1=macro_f1(predicted, labels, logits.shape[1], draws),
        calibration_error=calibration_error(logits, labels, temperature, draws),
        temperature=temperature,
    )


def macro_f1(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int, draws: NDArray[np.int64]
) -> Figure:
    """Unweighted mean of the F1 of the classes that occur among labels or predictions."""

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        base = np.arange(len(rows))[:, None] * classes

        def count(values: NDArray[np.int64], weights: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
            flat = None if weights is None else weights[rows].ravel().astype(np.float64)
            counts = np.bincount((base + values[rows]).ravel(), flat, minlength=len(rows) * classes)
            return counts.reshape(len(rows), classes).astype(np.float64)

        hits = count(labels, predicted == labels)
        seen = count(labels) + count(predicted)
        f1 = np.divide(2 * hits, seen, out=np.zeros_like(seen), where=seen > 0)
        result: NDArray[np.float64] = f1.sum(axis=1) / np.maximum((seen > 0).sum(axis=1), 1)
        return result

    everything = np.arange(len(labels))[None, :]
    return interval(float(score(everything)[0]), score(draws), len(labels))


def paired_drop(
    teacher: NDArray[np.int64],
    candidate: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
) -> Figure:
    """Teacher's accuracy minus candidate's over the same rows, with the paired interval."""
    difference = (teacher == labels).astype(np.float64) - (candidate == labels)
    return mean_figure(difference, draw_resamples(len(labels), resamples, seed))
