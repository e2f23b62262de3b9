"""The Pareto set: the candidates that no other beats on every objective."""

from __future__ import annotations

from collections.abc import Sequence

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


def pareto_mask(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of (rows, objectives), all minimized, no other row dominates.

    A row dominates another if it is nowhere worse and somewhere better; equal rows both stay.
    """
    order = np.lexsort(losses.T[::-1])
    kept: list[int] = []
    mask = np.zeros(len(losses), dtype=bool)
    # In lexicographic order a row can only be dominated by an earlier one, hence by a kept one.
    for row in order.tolist():
        members = losses[kept]
        beaten = (members <= losses[row]).all(axis=1) & (members < losses[row]).any(axis=1)
        if not beaten.any():
            kept.append(row)
            mask[row] = True
    return mask


def frontier(candidates: Sequence[Candidate], names: Sequence[str]) -> list[Candidate]:
    """The eligible candidates that are not dominated, cheapest to serve first."""
    eligible = [candidate for candidate in candidates if candidate.eligible]
    if not eligible:
        return []
    signs = np.array([-1.0 if name in MAXIMIZED else 1.0 for name in names])
    losses = np.array([[objective(c, name) for name in names] for c in eligible]) * signs
    members = [c for c, kept in zip(eligible, pareto_mask(losses), strict=True) if kept]
    return sorted(members, key=lambda c: (c.cost.serving_usd_per_1k, c.recipe_hash))
