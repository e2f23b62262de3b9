"""The searcher that Tune asks for recipes: Optuna, told of objectives and of hard constraints."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna import samplers
from ray.tune.search.optuna import OptunaSearch

from equipoise.config.search import ConstraintsConfig, SearchConfig
from equipoise.runs import Candidate, Recipe, Speed
from equipoise.search.constraints import CONSTRAINTS, bounds
from equipoise.search.frontier import MAXIMIZED, directions, objective
from equipoise.search.plan import Plan
from equipoise.search.recovery import is_short
from equipoise.search.space import Space

RECOVERY = "recovery"
"""Key of a proposed point that no sampler chooses: the share of the epochs."""

_VIOLATION = "violation_"
_FAR = 1e9
"""Stands for what is worse than anything measured."""


class ConstrainedSearch(OptunaSearch):
    """Optuna over a space, whose finished trials say how far they are from each constraint.

    A constraint is a property of its own beside the objectives (Deb's rule in NSGA-II, a model of
    feasible points in TPE): a recipe that is too slow is not merely a bad one, it is out. What is
    tried, and whether anything is, the plan says; Optuna is asked where the plan has nothing.
    """

    def __init__(self, *, recipes: Space, plan: Plan, **options: Any) -> None:
        super().__init__(**options)
        self._recipes, self._plan = recipes, plan

    def suggest(self, trial_id: str) -> Any:
        """A point with its `recovery`; None where the plan waits, FINISHED where it is done."""
        step = self._plan.next()
        if step == "done":
            return self.FINISHED
        if step == "wait":
            return None
        if isinstance(step, Recipe):
            study: optuna.Study = self._ot_study
            study.enqueue_trial(self._recipes.point(step) or {})
        point: Any = super().suggest(trial_id)
        recipe = step if isinstance(step, Recipe) else self._plan.recovered(self._recipes.recipe(point))
        self._plan.started(trial_id, recipe)
        return {**point, RECOVERY: recipe.recovery}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial, told = self._ot_trials.get(trial_id), result or {}
        for key, value in told.items():
            if trial is not None and key.startswith(_VIOLATION):
                trial.set_constraint(key.removeprefix(_VIOLATION), value)
        super().on_trial_complete(trial_id, result, error)
        self._plan.ended(trial_id, candidate=told.get("recipe_hash"), dropped=bool(told.get("dropped")))


def build_searcher(space: Space, plan: Plan, seed: int, concurrent: int = 1) -> ConstrainedSearch:
    """A searcher that goes by a plan.

    Args:
        concurrent: trials at once.
    """
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    search = plan.limits.search
    return ConstrainedSearch(
        recipes=space,
        plan=plan,
        space=space.distributions(),
        metric=list(search.objectives),
        mode=directions(search.objectives),
        sampler=build_sampler(search, seed, concurrent),
    )


def build_sampler(search: SearchConfig, seed: int, concurrent: int = 1) -> samplers.BaseSampler:
    """The sampler that the config names; with several trials at once, TPE keeps off those under way."""
    if search.sampler == "nsga2":
        return samplers.NSGAIISampler(population_size=max(4, search.trials // 3), seed=seed)
    if search.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    drawn = max(4, min(10, search.trials // 2))
    return samplers.TPESampler(
        multivariate=True, n_startup_trials=drawn, seed=seed, constant_liar=concurrent > 1
    )


def report_of(candidate: Candidate, search: SearchConfig, constraints: ConstraintsConfig) -> dict[str, float]:
    """What a finished trial tells the sampler, all of it numbers.

    One that may not be chosen is worthless on quality and violates every constraint; a short recovery
    tells what it came to.
    """
    values: dict[str, float] = {name: objective(candidate, name) for name in search.objectives}
    violations = {
        name: CONSTRAINTS[name].excess(candidate, bound) for name, bound in bounds(constraints).items()
    }
    if not candidate.eligible and not is_short(candidate):
        values |= {name: 0.0 for name in search.objectives if name in MAXIMIZED}
        violations = dict.fromkeys(violations, _FAR)
    finite = {name: value if math.isfinite(value) else _FAR for name, value in violations.items()}
    return {**values, **{f"{_VIOLATION}{name}": value for name, value in finite.items()}}


def report_of_dropped(speed: Speed, search: SearchConfig, constraints: ConstraintsConfig) -> dict[str, float]:
    """What a recipe that was too slow to be distilled tells the sampler: its latency, and no quality."""
    violations = dict.fromkeys(bounds(constraints), 0.0)
    bound = constraints.p99_ms
    if bound is not None:
        violations["p99_ms"] = max(0.0, speed.latency_p99_ms.value / bound - 1)
    values = report_of_fault(search)
    if "latency_p99_ms" in values:
        values["latency_p99_ms"] = speed.latency_p99_ms.value
    return {**values, **{f"{_VIOLATION}{name}": value for name, value in violations.items()}}


def report_of_fault(search: SearchConfig) -> dict[str, float]:
    """What a failed trial tells the sampler: worse than anything measured."""
    return {name: 0.0 if name in MAXIMIZED else _FAR for name in search.objectives}
