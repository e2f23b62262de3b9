"""Softmax, and the counts behind the metrics that several families share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.tasks.answers import Answers


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Row-wise softmax of logits of shape (rows, classes), in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def tally_hits(answers: Answers, truth: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
    """(hits, places) of each row, shape (rows, 2)."""
    hits = np.bincount(answers.row_of, answers.predicted == truth, minlength=rows)
    places = np.bincount(answers.row_of, minlength=rows)
    return np.stack([hits, places], axis=1).astype(np.float64)


def share(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """First count over the second, shape (..., 2) to (...); 0 where the second is 0."""
    result: NDArray[np.float64] = np.divide(
        sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] > 0
    )
    return result
