"""The Pareto set: the candidates that no other beats on every objective."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from equipoise.runs import Candidate

MAXIMIZED = frozenset({"metric", "robustness"})


def objective(candidate: Candidate, name: str) -> float:
    """One objective of a candidate, as it is reported."""
    quality, speed = candidate.quality, candidate.speed
    if name == "metric":
        return quality.metric.value
    if name == "robustness":
        return quality.robustness.value if quality.robustness else 0.0
    if name == "calibration":
        return quality.calibration_error.value
    if name == "latency_p99_ms":
        return speed.latency_p99_ms.value
    if name == "serving_usd_per_1k":
        return candidate.cost.serving_usd_per_1k
    if name == "bytes":
        return float(candidate.bytes)
    raise ValueError(f"unknown objective {name}")


def directions(names: Sequence[str]) -> list[str]:
    """`max` or `min` for each objective."""
    return ["max" if name in MAXIMIZED else "min" for name in names]


def losses(candidates: Sequence[Candidate], names: Sequence[str]) -> NDArray[np.float64]:
    """Objectives with every one of them to be lowered, shape (candidates, objectives)."""
    signs = np.array([-1.0 if name in MAXIMIZED else 1.0 for name in names])
    values = [[objective(candidate, name) for name in names] for candidate in candidates]
    shaped: NDArray[np.float64] = np.array(values, dtype=np.float64).reshape(len(candidates), len(names))
    return np.asarray(shaped * signs, dtype=np.float64)


def pareto_mask(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of shape (rows, objectives), all minimized, no other row dominates.

    A row dominates another if it is nowhere worse and somewhere better; equal rows both stay.
    """
    if not len(rows):
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(rows, keep_weakly=True), dtype=bool)


def frontier(candidates: Sequence[Candidate], names: Sequence[str]) -> list[Candidate]:
    """The eligible candidates that are not dominated, cheapest to serve first."""
    eligible = [candidate for candidate in candidates if candidate.eligible]
    if not eligible:
        return []
    kept = pareto_mask(losses(eligible, names))
    members = [candidate for candidate, stays in zip(eligible, kept, strict=True) if stays]
    return sorted(members, key=lambda c: (c.cost.serving_usd_per_1k, c.recipe_hash))
