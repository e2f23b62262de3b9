"""Temperature scaling (Guo et al., 2017) and the expected calibration error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from equipoise.measurement.bootstrap import interval
from equipoise.runs import Figure
from equipoise.tasks.text_classification import softmax

BINS = 15


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature in 0.05…20 with the least negative log-likelihood on these rows."""

    def loss(log_temperature: float) -> float:
        scores = softmax(logits / np.exp(log_temperature))
        return float(-np.log(scores[np.arange(len(labels)), labels] + 1e-12).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def calibration_error(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    temperature: float,
    draws: NDArray[np.int64],
) -> Figure:
    """Expected calibration error over 15 equal-mass bins of the top score, with its interval.

    The bins are those of the rows themselves and stay the same in each resample.
    """
    scores = softmax(logits / temperature)
    confidence = scores.max(axis=1)
    surplus = confidence - (scores.argmax(axis=1) == labels)
    ranks = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    bins = ranks * min(BINS, len(labels)) // len(labels)

    def error(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        offsets = np.arange(len(rows))[:, None] * BINS + bins[rows]
        sums = np.bincount(offsets.ravel(), surplus[rows].ravel(), minlength=len(rows) * BINS)
        result: NDArray[np.float64] = np.abs(sums.reshape(len(rows), BINS)).sum(axis=1) / rows.shape[1]
        return result

    everything = np.arange(len(labels))[None, :]
    return interval(float(error(everything)[0]), error(draws), len(labels))
