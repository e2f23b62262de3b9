"""An exported model against its torch original, and against itself in other company."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.engines import Predictor
from equipoise.runs import Agreement
from equipoise.tasks import Answers, join_answers

_SHUFFLES = 4
# Logits that move by d change the distance between two of them by 2d at most; doubled again, since
# d is the largest move seen and not the largest there is.
_REACH = 4.0


def measure_agreement(
    predictor: Predictor,
    inputs: Sequence[Any],
    answers: Answers,
    original: Answers,
    *,
    sample_rows: int,
    batch_size: int,
    seed: int,
) -> Agreement:
    """Compare answers with the original's, and answers to a row alone with those in a batch.

    An engine that quantizes over the whole batch answers a row differently in other company. A
    seeded sample of rows is run alone and in a shuffled batch, which shows how far logits move;
    then so is every row of the data in which a move of that size could change a label, in several
    shuffles; a label that changes in any of them counts. The rest cannot have changed, so the share
    of changed labels is one of all places.
    """
    count = len(inputs)
    rng = np.random.default_rng([seed, 2])
    alone: dict[int, Answers] = {}
    move = 0.0
    rows = np.sort(rng.permutation(count)[:sample_rows])
    while len(rows):
        beside = _in_company(predictor, inputs, rows, batch_size, rng)
        for row in rows.tolist():
            alone[row] = predictor.answers([inputs[row]])
            for other in (beside, answers):
                found = other.at(other.row_of == row)
                if len(found):
                    move = max(move, float(np.abs(alone[row].logits - found.logits).max()))
        uncertain = np.unique(answers.row_of[answers.margins <= _REACH * move])
        rows = np.array(sorted(set(uncertain.tolist()) - alone.keys()), dtype=np.int64)

    run = np.array(sorted(alone), dtype=np.int64)
    apart = join_answers([(run[[index]], alone[row]) for index, row in enumerate(run.tolist())])
    # Places in reach by their answer alone are reached whichever company they are in.
    reachable = apart.at(apart.margins <= _REACH * move)
    changed = _find_changed(reachable, answers)
    for _ in range(_SHUFFLES if len(reachable) else 0):
        again = _in_company(predictor, inputs, np.unique(reachable.row_of), batch_size, rng)
        changed |= _find_changed(reachable, again)
    return Agreement(
        max_logit_difference=float(np.abs(answers.logits - original.logits).max()),
        changed_labels=float((answers.predicted != original.predicted).mean()),
        neighbour_changes=float(changed.sum()) / max(len(answers), 1),
        max_neighbour_difference=move,
        rows=count,
    )


def _in_company(
    predictor: Predictor,
    inputs: Sequence[Any],
    rows: NDArray[np.int64],
    batch_size: int,
    rng: np.random.Generator,
) -> Answers:
    """Answers of the batches that these rows fall into when all rows are shuffled."""
    order = rng.permutation(len(inputs))
    parts = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        if np.isin(batch, rows).any():
            given = [inputs[row] for row in batch]
            parts.append((batch, predictor.answers(given, batch_size, np.arange(len(batch)))))
    return join_answers(parts)


def _find_changed(alone: Answers, together: Answers) -> NDArray[np.bool_]:
    """Whether each place of rows that were run alone has another class in batches that hold them."""
    first = np.searchsorted(together.row_of, alone.row_of)
    offset = np.arange(len(alone)) - np.searchsorted(alone.row_of, alone.row_of)
    return np.asarray(alone.predicted != together.predicted[first + offset])
