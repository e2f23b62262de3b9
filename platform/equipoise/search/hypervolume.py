"""How much of the objectives' space a set of candidates dominates: one number for a search's progress."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from equipoise.runs import Candidate
from equipoise.search.frontier import losses

_SHARES = frozenset({"metric", "robustness", "calibration"})
_ALLOWANCE = 0.05
"""How much worse than the teacher a share may be and still count: 5 points."""


def reference_point(teacher: Candidate, names: Sequence[str]) -> NDArray[np.float64]:
    """What a candidate must beat on every objective to count, in the coordinates of `positions`.

    Five points below the teacher in metric, robustness and calibration; the teacher itself in
    milliseconds, dollars and bytes.
    """
    offsets = np.array([_ALLOWANCE if name in _SHARES else 0.0 for name in names])
    reference: NDArray[np.float64] = positions([teacher], names)[0] + offsets
    return reference


def positions(candidates: Sequence[Candidate], names: Sequence[str]) -> NDArray[np.float64]:
    """Objectives to be lowered, shape (candidates, objectives).

    Shares as they are; latency, dollars and bytes as natural logarithms, so that halving one counts
    the same wherever it starts.
    """
    found = losses(candidates, names)
    for column, name in enumerate(names):
        if name not in _SHARES:
            found[:, column] = np.log(found[:, column])
    return found


def hypervolume(points: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Volume between points of shape (points, objectives), all lowered, and the reference point.

    Exact, by moocore's dimension sweeps (Fonseca, Paquete and López-Ibáñez, 2006; Guerreiro and
    Fonseca, 2018).
    """
    inside = points[(points < reference).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=reference)) if len(inside) else 0.0


def progress(points: NDArray[np.float64], reference: NDArray[np.float64]) -> list[float]:
    """Hypervolume after each point, in their order."""
    found: list[float] = []
    for count in range(1, len(points) + 1):
        # A point beyond the reference adds nothing; most of them need no computing.
        if found and not (points[count - 1] < reference).all():
            found.append(found[-1])
        else:
            found.append(hypervolume(points[:count], reference))
    return found
