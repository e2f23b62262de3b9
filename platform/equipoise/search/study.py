"""The search: Ray Tune with an Optuna sampler, resumed from the records and not from pickles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from equipoise import errors, hardware
from equipoise.errors import EquipoiseError, RetryableError
from equipoise.runs import Recipe, RunFolder, Speed
from equipoise.search.context import TrialContext
from equipoise.search.limits import Limits, Reason, in_order, over_budget, spent_usd
from equipoise.search.screening import screen_recipe
from equipoise.search.space import Space
from equipoise.search.trial import measure_recipe
from equipoise.search.warm_start import earlier_recipes

_DRIVER_MEMORY_BYTES = 64 * 2**20
_REPEATS = 6
"""Proposals allowed for each wanted candidate: a sampler may propose a recipe again."""


def run_search(
    context: TrialContext,
    space: Space,
    scratch: str,
    on_candidate: Callable[[str], None] = lambda name: None,
    on_dropped: Callable[[str], None] = lambda sentence: None,
) -> Reason:
    """Measure recipes until there are enough, nothing is gained any more, or the time is up.

    Finished candidates are handed to the sampler first: their trials read the record and return,
    so an interrupted search goes on with the study it had and repeats nothing.

    Args:
        on_candidate: told the hash of each finished candidate, once.
        on_dropped: told of each recipe that is too slow to be worth a distillation, in a sentence.

    Returns:
        What ended it; `trials` too where the sampler found no further recipe.

    Raises:
        OverBudgetError: `search.max_usd` is spent; what was measured stays, and a larger budget goes on.
        EquipoiseError: a trial failed.
    """
    search, run = context.config.search, RunFolder(context.folder)
    wanted = min(search.trials, space.size)
    limits = Limits(
        search=search,
        wanted=wanted,
        anchors=len(space.anchors()),
        deadline_s=None if search.time_limit_s is None else time.monotonic() + search.time_limit_s,
    )
    reason = limits.reached(in_order(run.candidates()), spent_usd(run))
    if reason is None:
        _run_tune(context, space, limits, scratch, on_candidate, on_dropped)
        reason = limits.reached(in_order(run.candidates()), spent_usd(run))
    if reason == "budget":
        raise over_budget(search, spent_usd(run), len(run.candidates()), run.location)
    return reason or "trials"


def first_recipes(context: TrialContext, space: Space) -> list[Recipe]:
    """What is measured before the sampler is asked: finished candidates, the teacher, the best of
    earlier runs, then the other anchors."""
    config = context.config
    finished = [candidate.recipe for candidate in in_order(RunFolder(context.folder).candidates())]
    machine = hardware.fingerprint(hardware.describe_hardware())
    earlier = earlier_recipes(config.search.warm_start, task=config.task, fingerprint=machine)
    order = dict.fromkeys([*finished, space.teacher, *space.written, *earlier, *space.anchors()])
    known = [recipe for recipe in order if space.point(recipe)]
    return known[: max(min(config.search.trials, space.size), len(finished))]


def _run_tune(
    context: TrialContext,
    space: Space,
    limits: Limits,
    scratch: str,
    on_candidate: Callable[[str], None],
    on_dropped: Callable[[str], None],
) -> None:
    import ray
    from ray import tune

    from equipoise.search.sampler import build_searcher, report_of, report_of_dropped, report_of_fault
    from equipoise.search.stopping import Enough, Watch

    config, search = context.config, context.config.search
    reference = ray.put(context)

    def trainable(point: dict[str, Any]) -> None:
        shared: TrialContext = ray.get(reference)
        recipe = space.recipe(point)
        try:
            if too_slow := screen_recipe(shared, reference, recipe):
                dropped = f"{recipe.label}: not distilled, {_slowness(too_slow, shared)}"
                tune.report({"dropped": dropped, **report_of_dropped(too_slow, search, config.constraints)})
                return
            candidate = measure_recipe(shared, reference, recipe)
        except EquipoiseError as error:
            tune.report({"fault": _pack(error), **report_of_fault(search)})
            return
        told = report_of(candidate, search, shared.config.constraints)
        tune.report({"recipe_hash": candidate.recipe_hash, **told})

    points = [point for recipe in first_recipes(context, space) if (point := space.point(recipe))]
    tuner = tune.Tuner(
        # No CPU: the training workers and Ray tasks that a trial waits for need them all. A placement
        # group must hold something, though.
        tune.with_resources(trainable, {"memory": _DRIVER_MEMORY_BYTES}),
        tune_config=tune.TuneConfig(
            search_alg=build_searcher(space, search, config.seed, points),
            num_samples=limits.wanted * _REPEATS,
            # Each trial spreads over the whole machine by itself; two would wait for each other.
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=scratch,
            verbose=0,
            stop=Enough(limits, context.folder),
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=True),
            callbacks=[Watch(on_candidate, on_dropped)],
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


def _slowness(speed: Speed, context: TrialContext) -> str:
    figure, bound = speed.latency_p99_ms, context.config.constraints.p99_ms
    return f"p99 {figure.value:.2f} ms (95% from {figure.low:.2f}) is beyond {bound:g} ms"


def _pack(error: EquipoiseError) -> str:
    """A fault as text: what a trial reports must be plain."""
    return json.dumps([type(error).__name__, error.what, error.where, error.remedy])


def _unpack(fault: str) -> EquipoiseError:
    """The fault of a trial, of its own kind, so that it ends with its own exit status."""
    name, what, where, remedy = json.loads(fault)
    kind: type[EquipoiseError] = getattr(errors, name, EquipoiseError)
    return kind(what, where=where, remedy=remedy)
