"""The search: Ray Tune with an Optuna sampler, resumed from the records and not from pickles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from equipoise import errors
from equipoise.compression.structure import recipe_hash
from equipoise.config import RunConfig
from equipoise.errors import EquipoiseError, RetryableError
from equipoise.placement import Placement, find_placement
from equipoise.runs import Candidate, Recipe, RunFolder, Speed
from equipoise.search.context import TrialContext
from equipoise.search.limits import Limits, Reason, in_order, over_budget, spent_usd
from equipoise.search.plan import Plan
from equipoise.search.screening import screen_recipe
from equipoise.search.space import Space
from equipoise.search.starts import read_kept
from equipoise.search.trial import measure_recipe
from equipoise.search.turns import ALONE, open_turns
from equipoise.search.warm_start import earlier_recipes, serving_fingerprint
from equipoise.training.workers import resolve_workers, worker_resources

_DRIVER_MEMORY_BYTES = 64 * 2**20


def run_search(
    context: TrialContext,
    space: Space,
    scratch: str,
    on_candidate: Callable[[str], None] = lambda name: None,
    on_dropped: Callable[[str], None] = lambda sentence: None,
) -> Reason:
    """Measure recipes until there are enough, nothing is gained any more, or the time is up.

    On a cluster several trials run at once, each on a machine of its own.

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
    finished = in_order(run.candidates())
    plan = plan_search(context, space, finished)
    reason = plan.limits.reached(finished, spent_usd(run))
    if reason is None or (reason == "trials" and not plan.complete):
        _run_tune(context, space, plan, scratch, on_candidate, on_dropped)
        # Once more: the sampler may have run out of proposals.
        reason = plan.reason or plan.limits.reached(in_order(run.candidates()), spent_usd(run), plan.dropped)
    if reason == "budget":
        raise over_budget(search, spent_usd(run), len(run.candidates()), run.location)
    return reason or "trials"


def plan_search(context: TrialContext, space: Space, finished: Sequence[Candidate] = ()) -> Plan:
    """What is measured before the sampler is asked: finished candidates, the teacher, recipes of the
    config, the best of earlier runs, then the other anchors; and what ends it."""
    config = context.config
    search = config.search
    earlier: list[Recipe] = []
    if search.warm_start:
        machine = serving_fingerprint(config)
        earlier = earlier_recipes(search.warm_start, task=config.task, fingerprint=machine)
    given = [recipe for recipe in (space.teacher, *space.written, *earlier) if space.point(recipe)]
    anchors = space.anchors()
    limits = Limits(
        search=search,
        wanted=min(search.trials, space.size),
        anchors=frozenset(recipe_hash(recipe) for recipe in (*given, *anchors)),
        deadline_s=None if search.time_limit_s is None else time.monotonic() + search.time_limit_s,
    )
    known = [candidate for candidate in finished if space.point(candidate.recipe)]
    return Plan(limits, context.folder, known, given, anchors)


def trials_at_once(config: RunConfig, placement: Placement) -> int:
    """As many as there are machines to train and to measure on, or as the config says if that is less."""
    groups = placement.groups_at_once(resolve_workers(config.training), worker_resources(config.training))
    # While some are measured on nodes of their own, others train.
    room = groups + (placement.measuring_nodes if placement.apart else 0)
    return min(room, config.search.concurrent_trials or room)


def _run_tune(
    context: TrialContext,
    space: Space,
    plan: Plan,
    scratch: str,
    on_candidate: Callable[[str], None],
    on_dropped: Callable[[str], None],
) -> None:
    import ray
    from ray import tune

    from equipoise.search.sampler import (
        RECOVERY,
        build_searcher,
        report_of,
        report_of_dropped,
        report_of_fault,
    )
    from equipoise.search.stopping import Fault, Watch

    config, search = context.config, context.config.search
    placement = find_placement(search.serving_nodes)
    concurrent = trials_at_once(config, placement)
    turns = ALONE
    if concurrent > 1:
        groups = placement.groups_at_once(resolve_workers(config.training), worker_resources(config.training))
        turns = open_turns(training=groups, measuring=placement.measuring_nodes)
        if any(structure.vocabulary == "task" for structure in space.structures.values()):
            read_kept(context)  # Written once, before trials on several nodes look for it.
    reference = ray.put(context)

    def trainable(point: dict[str, Any]) -> None:
        shared: TrialContext = ray.get(reference)
        recipe = space.recipe(point).model_copy(update={RECOVERY: point[RECOVERY]})
        try:
            # A sampler may propose what another trial is measuring: it is measured once, and read then.
            with turns.hold(f"recipe {recipe_hash(recipe)}"):
                if too_slow := screen_recipe(shared, reference, recipe, turns):
                    dropped = f"{recipe.label}: not distilled, {_slowness(too_slow, shared)}"
                    told = report_of_dropped(too_slow, search, config.constraints)
                    tune.report({"dropped": dropped, **told})
                    return
                candidate = measure_recipe(shared, reference, recipe, turns)
        except EquipoiseError as error:
            tune.report({"fault": _pack(error), **report_of_fault(search)})
            return
        told = report_of(candidate, search, shared.config.constraints)
        tune.report({"recipe_hash": candidate.recipe_hash, **told})

    # No CPU: the training workers and Ray tasks that a trial waits for need them all. A placement
    # group must hold something, though. Trials keep off nodes on which others are timed.
    bundle: dict[str, float] = {"memory": _DRIVER_MEMORY_BYTES}
    elsewhere: dict[str, Any] = {"bundle_label_selector": [placement.training]} if placement.apart else {}
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([bundle], **elsewhere)),
        tune_config=tune.TuneConfig(
            search_alg=build_searcher(space, plan, config.seed, concurrent),
            num_samples=-1,  # The plan says when it is enough.
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=scratch,
            verbose=0,
            stop=Fault(),
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
