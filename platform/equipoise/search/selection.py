"""The choice: the cheapest eligible candidate that meets every constraint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from equipoise.config.search import ConstraintsConfig
from equipoise.errors import InfeasibleError
from equipoise.runs import Candidate

_CONSTRAINTS = ("max_drop", "p99_ms", "max_usd_month", "max_mb")


def constrained_value(candidate: Candidate, constraint: str) -> float:
    """What a constraint bounds from above."""
    if constraint == "max_drop":
        return candidate.metric_drop.value
    if constraint == "p99_ms":
        return candidate.speed.latency_p99_ms.value
    if constraint == "max_usd_month":
        return candidate.cost.serving_usd_month
    return candidate.bytes / 1e6


def excesses(candidate: Candidate, constraints: ConstraintsConfig) -> dict[str, float]:
    """Each violated constraint with its excess as a share of the bound."""
    found = {}
    for name in _CONSTRAINTS:
        bound = getattr(constraints, name)
        if bound is None:
            continue
        value = constrained_value(candidate, name)
        if value > bound:
            found[name] = (value - bound) / max(bound, 1e-3)
    return found


def select(candidates: Sequence[Candidate], constraints: ConstraintsConfig) -> Candidate:
    """The candidate of least total dollars over the horizon; the better metric breaks a tie.

    Raises:
        InfeasibleError: none meets the constraints; names the nearest and what binds it.
    """
    eligible = [candidate for candidate in candidates if candidate.eligible]
    if not eligible:
        raise InfeasibleError("no candidate is eligible", remedy="see the rejections in the report")
    fitting = [candidate for candidate in eligible if not excesses(candidate, constraints)]
    if fitting:
        return min(
            fitting, key=lambda c: (round(c.cost.total_usd, 6), -c.quality.metric.value, c.recipe_hash)
        )
    nearest = min(eligible, key=lambda c: (sum(excesses(c, constraints).values()), c.recipe_hash))
    over = excesses(nearest, constraints)
    binding = max(over, key=lambda name: over[name])
    bound, value = getattr(constraints, binding), constrained_value(nearest, binding)
    raise InfeasibleError(
        f"no candidate meets the constraints: {binding} = {bound:g} binds; the nearest is "
        f"{nearest.recipe.label} ({nearest.recipe_hash}) at {value:.4g}",
        where=f"constraints.{binding}",
        remedy=f"allow {value:.4g}, or widen the search",
    )


def explain(choice: Candidate, teacher: Candidate, constraints: ConstraintsConfig) -> dict[str, Any]:
    """The `choice.json` record: what was chosen, why, and the margin on each constraint."""
    margins = {
        name: {
            "bound": getattr(constraints, name),
            "value": constrained_value(choice, name),
            "margin": getattr(constraints, name) - constrained_value(choice, name),
        }
        for name in _CONSTRAINTS
        if getattr(constraints, name) is not None
    }
    ratio = choice.cost.serving_usd_per_1k / teacher.cost.serving_usd_per_1k
    keeps = choice.recipe_hash == teacher.recipe_hash
    reason = (
        "the teacher itself is the cheapest over the horizon"
        if keeps
        else f"cheapest over {choice.cost.horizon_months:g} months of those that meet the constraints"
    )
    return {
        "feasible": True,
        "recipe_hash": choice.recipe_hash,
        "recipe": choice.recipe.model_dump(mode="json"),
        "label": choice.recipe.label,
        "teacher_hash": teacher.recipe_hash,
        "keep_teacher": keeps,
        "reason": reason,
        "constraints": margins,
        "cost_ratio": ratio,
    }
