"""The searcher that Tune asks for recipes: Optuna, told of objectives and of hard constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
from optuna import samplers
from ray.tune.search.optuna import OptunaSearch

from equipoise.config.search import ConstraintsConfig, SearchConfig
from equipoise.runs import Candidate, Speed
from equipoise.search.constraints import CONSTRAINTS, bounds
from equipoise.search.frontier import MAXIMIZED, directions, objective
from equipoise.search.space import Point, Space

_VIOLATION = "violation_"
_FAR = 1e9
"""Stands for what is worse than anything measured."""


class ConstrainedSearch(OptunaSearch):
    """Optuna over a space, whose finished trials say how far they are from each constraint.

    A constraint is a property of its own beside the objectives (Deb's rule in NSGA-II, a model of
    feasible points in TPE): a recipe that is too slow is not merely a bad one, it is out.
    """

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self._ot_trials.get(trial_id)
        for key, value in (result or {}).items():
            if trial is not None and key.startswith(_VIOLATION):
                trial.set_constraint(key.removeprefix(_VIOLATION), value)
        super().on_trial_complete(trial_id, result, error)


def build_searcher(
    space: Space, search: SearchConfig, seed: int, first: Sequence[Point]
) -> ConstrainedSearch:
    """A searcher that proposes the points of `first` before it asks its sampler."""
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    return ConstrainedSearch(
        space=space.distributions(),
        metric=list(search.objectives),
        mode=directions(search.objectives),
        sampler=build_sampler(search, seed),
        points_to_evaluate=list(first),
    )


def build_sampler(search: SearchConfig, seed: int) -> samplers.BaseSampler:
    """The sampler that the config names."""
    if search.sampler == "nsga2":
        return samplers.NSGAIISampler(population_size=max(4, search.trials // 3), seed=seed)
    if search.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    drawn = max(4, min(10, search.trials // 2))
    return samplers.TPESampler(multivariate=True, n_startup_trials=drawn, seed=seed)


def report_of(candidate: Candidate, search: SearchConfig, constraints: ConstraintsConfig) -> dict[str, float]:
    """What a finished trial tells the sampler, all of it numbers.

    One that may not be chosen is worthless on quality and violates every constraint.
    """
    values: dict[str, float] = {name: objective(candidate, name) for name in search.objectives}
    violations = {
        name: CONSTRAINTS[name].excess(candidate, bound) for name, bound in bounds(constraints).items()
    }
    if not candidate.eligible:
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
