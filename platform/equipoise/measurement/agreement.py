"""An exported model against its torch original, and against itself in other company."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.engines import Predictor
from equipoise.runs import Agreement


def measure_agreement(
    predictor: Predictor,
    texts: Sequence[str],
    logits: NDArray[np.float32],
    original: NDArray[np.float32],
    *,
    batch_size: int,
    seed: int,
) -> Agreement:
    """Compare logits (rows, labels) with the original's, and labels alone with labels in a batch.

    Each row is run by itself and once more in a shuffled batch of other rows, padded to the
    longest of them: an engine that quantizes over the whole batch answers differently there.
    """
    alone = np.stack([predictor.engine.run(predictor.task.encode([text]))["logits"][0] for text in texts])
    together = np.empty_like(alone)
    order = np.random.default_rng([seed, 2]).permutation(len(texts))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = predictor.task.encode([texts[row] for row in rows])
        together[rows] = predictor.engine.run(batch)["logits"]
    rows_compared = len(texts)
    return Agreement(
        max_logit_difference=float(np.abs(logits[:rows_compared] - original[:rows_compared]).max()),
        changed_labels=_changed(logits, original),
        neighbour_changes=_changed(alone, together),
        rows=rows_compared,
    )


def _changed(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float((left.argmax(axis=1) != right.argmax(axis=1)).mean())
