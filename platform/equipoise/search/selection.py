"""The choice: the cheapest eligible candidate that meets every constraint, and why it is that one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from equipoise.config.search import ConstraintsConfig
from equipoise.errors import InfeasibleError
from equipoise.runs import Candidate
from equipoise.search.constraints import CONSTRAINTS, bounds, excesses

RELAXATION = 0.1
"""Share by which each constraint is widened to see what it costs."""


def select(candidates: Sequence[Candidate], constraints: ConstraintsConfig) -> Candidate:
    """The candidate of least total dollars over the horizon; the better metric breaks a tie.

    The total of every candidate but the teacher holds the search, so that the teacher is the answer
    where the search does not pay.

    Raises:
        InfeasibleError: none meets the constraints; names the nearest and what binds it.
    """
    found = _cheapest(candidates, constraints)
    if found is None:
        raise infeasible(diagnose(candidates, constraints))
    return found


def explain(
    choice: Candidate,
    teacher: Candidate | None,
    candidates: Sequence[Candidate],
    constraints: ConstraintsConfig,
) -> dict[str, Any]:
    """The `choice.json` record: what was chosen, why, and what each constraint costs.

    `constraints` holds bound, value, margin and 95% interval of each; `relaxed` what widening each one
    by a tenth would choose and save; the teacher's figures are None where it was not measured.
    """
    keeps = choice.is_teacher
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
        "teacher_hash": teacher.recipe_hash if teacher else None,
        "keep_teacher": keeps,
        "reason": reason,
        "constraints": _margins(choice, constraints),
        "relaxed": _relaxations(choice, candidates, constraints),
        "cost_ratio": _ratio(choice, teacher),
        "teacher_meets": not excesses(teacher, constraints) if teacher else None,
        "saves_usd": teacher.cost.total_usd - choice.cost.total_usd if teacher else None,
        "break_even_months": break_even_months(choice, teacher) if teacher else None,
    }


def diagnose(candidates: Sequence[Candidate], constraints: ConstraintsConfig) -> dict[str, Any]:
    """The `choice.json` record where nothing fits: the nearest candidate and what keeps it out.

    The nearest is the one whose excesses, as shares of the bounds, sum to the least; the constraint
    that it exceeds most is the binding one. `enough_alone` tells of each constraint that lets a
    candidate in by itself how far it would have to go.
    """
    eligible = [candidate for candidate in candidates if candidate.eligible]
    record: dict[str, Any] = {
        "feasible": False,
        "teacher_hash": next((c.recipe_hash for c in candidates if c.is_teacher), None),
    }
    if not eligible:
        return {**record, "binding": None, "nearest": None, "reason": "no candidate is eligible"}
    over = {candidate.recipe_hash: excesses(candidate, constraints) for candidate in eligible}
    nearest = min(eligible, key=lambda c: (sum(over[c.recipe_hash].values()), c.recipe_hash))
    missed = over[nearest.recipe_hash]
    binding = max(missed, key=lambda name: missed[name])
    alone = _enough_alone(eligible, over)
    bound, value = bounds(constraints)[binding], _text(CONSTRAINTS[binding].value(nearest))
    return {
        **record,
        "binding": binding,
        "nearest": {
            "recipe_hash": nearest.recipe_hash,
            "label": nearest.recipe.label,
            "constraints": _margins(nearest, constraints),
            "violates": sorted(missed, key=lambda name: (-missed[name], name)),
        },
        "enough_alone": {name: CONSTRAINTS[name].value(found) for name, found in alone.items()},
        "enough_alone_by": {name: found.recipe_hash for name, found in alone.items()},
        "reason": f"no candidate meets the constraints: {binding} = {bound:g} binds; the nearest is "
        f"{nearest.recipe.label} ({nearest.recipe_hash}) at {value}",
    }


def infeasible(record: dict[str, Any]) -> InfeasibleError:
    """The error of a `diagnose` record."""
    nearest = record["nearest"]
    if nearest is None:
        return InfeasibleError(record["reason"], remedy="see the rejections in the report")
    first, *others = (_text(nearest["constraints"][name]["value"]) for name in nearest["violates"])
    also = [f" and {name} {value}" for name, value in zip(nearest["violates"][1:], others, strict=True)]
    return InfeasibleError(
        record["reason"],
        where=f"constraints.{record['binding']}",
        remedy=f"allow {first}{''.join(also)}, or widen the search",
    )


def break_even_months(choice: Candidate, teacher: Candidate) -> float | None:
    """Months until what the choice saves in running has paid for making it; None where it never does."""
    extra = _one_off_usd(choice) - _one_off_usd(teacher)
    saved = _monthly_usd(teacher) - _monthly_usd(choice)
    if extra <= 0:
        return 0.0
    return extra / saved if saved > 0 else None


def _cheapest(candidates: Sequence[Candidate], constraints: ConstraintsConfig) -> Candidate | None:
    fitting = [c for c in candidates if c.eligible and not excesses(c, constraints)]
    return min(
        fitting,
        key=lambda c: (round(c.cost.total_usd, 6), -c.quality.metric.value, c.recipe_hash),
        default=None,
    )


def _margins(candidate: Candidate, constraints: ConstraintsConfig) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "bound": bound,
            "value": CONSTRAINTS[name].value(candidate),
            "margin": CONSTRAINTS[name].margin(candidate, bound),
            "interval": CONSTRAINTS[name].interval(candidate),
        }
        for name, bound in bounds(constraints).items()
    }


def _relaxations(
    choice: Candidate, candidates: Sequence[Candidate], constraints: ConstraintsConfig
) -> dict[str, dict[str, Any]]:
    found = {}
    for name, bound in bounds(constraints).items():
        wider = CONSTRAINTS[name].relaxed(bound, RELAXATION)
        other = _cheapest(candidates, constraints.model_copy(update={name: wider})) or choice
        found[name] = {
            "bound": wider,
            "recipe_hash": other.recipe_hash,
            "label": other.recipe.label,
            "saves_usd": choice.cost.total_usd - other.cost.total_usd,
            "saves_usd_month": choice.cost.serving_usd_month - other.cost.serving_usd_month,
        }
    return found


def _enough_alone(eligible: Sequence[Candidate], over: dict[str, dict[str, float]]) -> dict[str, Candidate]:
    """For each constraint the nearest of the candidates that violate it alone."""
    least: dict[str, tuple[float, Candidate]] = {}
    for candidate in eligible:
        missed = over[candidate.recipe_hash]
        if len(missed) == 1 and math.isfinite(sum(missed.values())):
            ((name, excess),) = missed.items()
            if name not in least or excess < least[name][0]:
                least[name] = (excess, candidate)
    return {name: found for name, (_, found) in sorted(least.items())}


def _ratio(choice: Candidate, teacher: Candidate | None) -> float | None:
    return None if teacher is None else choice.cost.serving_usd_per_1k / teacher.cost.serving_usd_per_1k


def _one_off_usd(candidate: Candidate) -> float:
    cost = candidate.cost
    return cost.compute_training_usd + cost.compute_search_usd + cost.data_usd


def _monthly_usd(candidate: Candidate) -> float:
    cost = candidate.cost
    return (cost.compute_serving_usd + cost.storage_usd + cost.maintenance_usd) / cost.horizon_months


def _text(value: float | None) -> str:
    return "nothing measured" if value is None else f"{value:.4g}"
