"""The search: Ray Tune with an Optuna sampler, resumed from the records and not from pickles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from equipoise import errors
from equipoise.config.search import SearchConfig
from equipoise.errors import EquipoiseError, RetryableError
from equipoise.runs import Candidate, RunFolder
from equipoise.search.context import TrialContext
from equipoise.search.frontier import MAXIMIZED, directions, objective
from equipoise.search.space import Space
from equipoise.search.trial import measure_recipe

_DRIVER_MEMORY_BYTES = 64 * 2**20
_REPEATS = 6
"""Proposals allowed for each wanted candidate: a sampler may propose a recipe again."""


def run_search(
    context: TrialContext, space: Space, scratch: str, on_candidate: Callable[[str], None] | None = None
) -> list[Candidate]:
    """Measure recipes until there are enough, or the time is up.

    Finished candidates are handed to the sampler first: their trials read the record and return,
    so an interrupted search goes on with the study it had and repeats nothing.

    Raises:
        EquipoiseError: a trial failed.
    """
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    from equipoise.search.stopping import Enough, Watch

    search = context.config.search
    run = RunFolder(context.folder)
    wanted = min(search.trials, space.size)
    finished = [candidate.recipe for candidate in run.candidates()]
    order = dict.fromkeys([r for r in finished if space.point(r)] + space.anchors())
    first = list(order)[: max(wanted, len(finished))]
    reference = ray.put(context)
    deadline = None if search.time_limit_s is None else time.monotonic() + search.time_limit_s

    def trainable(point: dict[str, Any]) -> None:
        shared: TrialContext = ray.get(reference)
        try:
            candidate = measure_recipe(shared, reference, space.recipe(point))
        except EquipoiseError as error:
            tune.report({"fault": _pack(error), **_worst(search)})
            return
        tune.report({"recipe_hash": candidate.recipe_hash, **_objectives(candidate, search)})

    tuner = tune.Tuner(
        # No CPU: the training workers and Ray tasks that a trial waits for need them all. A placement
        # group must hold something, though.
        tune.with_resources(trainable, {"memory": _DRIVER_MEMORY_BYTES}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space=space.distributions(),
                metric=list(search.objectives),
                mode=directions(search.objectives),
                sampler=_sampler(search, context.config.seed),
                points_to_evaluate=[point for recipe in first if (point := space.point(recipe))],
            ),
            num_samples=wanted * _REPEATS,
            # Each trial spreads over the whole machine by itself; two would wait for each other.
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=scratch,
            verbose=0,
            stop=Enough(wanted, deadline),
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=True),
            callbacks=[Watch(on_candidate)] if on_candidate else [],
        ),
    )
    results: Any = tuner.fit()
    for result in results:
        if result.error is not None:
            raise RetryableError(
                f"a trial died: {(str(result.error).strip().splitlines() or ['?'])[-1]}",
                where="search",
                remedy="run again to continue; finished candidates are kept",
            ) from result.error
        if result.metrics and result.metrics.get("fault"):
            raise _unpack(result.metrics["fault"])
    return run.candidates()


def _pack(error: EquipoiseError) -> str:
    """A fault as text: what a trial reports must be plain."""
    return json.dumps([type(error).__name__, error.what, error.where, error.remedy])


def _unpack(fault: str) -> EquipoiseError:
    """The fault of a trial, of its own kind, so that it ends with its own exit status."""
    name, what, where, remedy = json.loads(fault)
    kind: type[EquipoiseError] = getattr(errors, name, EquipoiseError)
    return kind(what, where=where, remedy=remedy)


def _objectives(candidate: Candidate, search: SearchConfig) -> dict[str, float]:
    """What the sampler learns; one that may not be chosen counts as worthless on quality."""
    values: dict[str, float] = {name: objective(candidate, name) for name in search.objectives}
    if not candidate.eligible:
        values |= {name: 0.0 for name in search.objectives if name in MAXIMIZED}
    return values


def _worst(search: SearchConfig) -> dict[str, float]:
    return {name: 0.0 if name in MAXIMIZED else 1e9 for name in search.objectives}


def _sampler(search: SearchConfig, seed: int) -> Any:
    import optuna
    from optuna import samplers

    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()

    if search.sampler == "nsga2":
        return samplers.NSGAIISampler(population_size=max(4, search.trials // 3), seed=seed)
    if search.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    return samplers.TPESampler(multivariate=True, n_startup_trials=max(4, search.trials // 2), seed=seed)
