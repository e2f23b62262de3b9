"""Temperature scaling (Guo et al., 2017) and the expected calibration error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from equipoise.measurement.bootstrap import sums_figure
from equipoise.runs import Figure
from equipoise.tasks import Answers
from equipoise.tasks.scores import softmax

BINS = 15


def fit_temperature(answers: Answers, truth: NDArray[np.int64]) -> float:
    """The temperature in 0.05…20 with the least negative log-likelihood at these places.

    1 where the logits of all classes were not kept.
    """
    if answers.classes is not None:
        return 1.0

    def loss(log_temperature: float) -> float:
        scores = softmax(answers.logits / np.exp(log_temperature))
        return float(-np.log(scores[np.arange(len(truth)), truth] + 1e-12).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def calibration_error(
    answers: Answers,
    truth: NDArray[np.int64],
    temperature: float,
    rows: int,
    draws: NDArray[np.int64],
) -> Figure:
    """Expected calibration error over 15 equal-mass bins of the top score, with its interval.

    The bins are those of the places themselves and stay the same in each resample.
    """
    scores = softmax(answers.logits / temperature)
    # Of an open vocabulary the last column is no class, but what is left of the distribution.
    confidence = (scores if answers.classes is None else scores[:, :-1]).max(axis=1)
    surplus = confidence - (answers.predicted == truth)
    ranks = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    bins = ranks * min(BINS, len(truth)) // len(truth)
    by_bin = np.bincount(answers.row_of * BINS + bins, surplus, minlength=rows * BINS).reshape(rows, BINS)
    places = np.bincount(answers.row_of, minlength=rows)[:, None].astype(np.float64)

    def error(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.abs(sums[..., :BINS]).sum(axis=-1) / np.maximum(sums[..., BINS], 1)
        return result

    return sums_figure(np.concatenate([by_bin, places], axis=1), error, draws)
