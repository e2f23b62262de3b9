"""An exported model against its torch original, and against itself in other company."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.engines import Predictor
from equipoise.runs import Agreement

_SHUFFLES = 4
# Logits that move by d change the distance between two of them by 2d at most; doubled again, since
# d is the largest move seen and not the largest there is.
_REACH = 4.0


def measure_agreement(
    predictor: Predictor,
    inputs: Sequence[Any],
    logits: NDArray[np.float32],
    original: NDArray[np.float32],
    *,
    sample_rows: int,
    batch_size: int,
    seed: int,
) -> Agreement:
    """Compare logits (rows, labels) with the original's, and labels alone with labels in a batch.

    An engine that quantizes over the whole batch answers a row differently in other company. A
    seeded sample of rows is run alone and in a shuffled batch, which shows how far logits move;
    then so is every row of the data whose label a move of that size could change, in several
    shuffles. The rest cannot have changed, so the share of changed labels is one of all rows.
    """
    count = len(inputs)
    rng = np.random.default_rng([seed, 2])
    together = _in_shuffled_batches(predictor, inputs, rng.permutation(count), batch_size)
    alone = np.full_like(together, np.nan)
    move = 0.0
    rows = run = rng.permutation(count)[:sample_rows]
    while len(rows):
        for row in rows:
            alone[row] = predictor.engine.run(predictor.task.encode([inputs[row]]))["logits"][0]
        run = np.flatnonzero(~np.isnan(alone[:, 0]))
        move = float(np.abs(alone[run] - together[run]).max())
        rows = np.setdiff1d(np.flatnonzero(_margins(together) <= _REACH * move), run)

    reachable = run[_margins(alone[run]) <= _REACH * move]
    changed = [_changed(alone[run], together[run]) * len(run)]
    if len(reachable):
        for _ in range(_SHUFFLES - 1):
            again = _in_shuffled_batches(predictor, inputs, rng.permutation(count), batch_size)
            changed.append(_changed(alone[reachable], again[reachable]) * len(reachable))
    return Agreement(
        max_logit_difference=float(np.abs(logits - original).max()),
        changed_labels=_changed(logits, original),
        neighbour_changes=float(np.mean(changed)) / count,
        max_neighbour_difference=move,
        rows=count,
    )


def _in_shuffled_batches(
    predictor: Predictor, inputs: Sequence[Any], order: NDArray[np.int64], batch_size: int
) -> NDArray[np.float32]:
    parts = [
        predictor.engine.run(
            predictor.task.encode([inputs[row] for row in order[start : start + batch_size]])
        )
        for start in range(0, len(order), batch_size)
    ]
    logits = np.concatenate([part["logits"] for part in parts])
    return np.asarray(logits[np.argsort(order)], dtype=np.float32)


def _margins(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of the best logit to the second best, for each row."""
    best = np.partition(logits, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2], dtype=np.float32)


def _changed(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float((left.argmax(axis=1) != right.argmax(axis=1)).mean())
