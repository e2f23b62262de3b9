from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.compression.structure import recipe_hash
from equipoise.config.search import SearchConfig
from equipoise.runs import Candidate, Recipe, RunFolder
from equipoise.search.limits import Limits
from equipoise.search.plan import Plan
from equipoise.search.recovery import in_full, short_reason
from equipoise.search.space import Space

Finish = Callable[..., Candidate]


@pytest.fixture(scope="module")
def finish(build_candidate: Callable[..., Candidate]) -> Finish:
    """`finish(plan, trial, recipe)`: the recipe becomes a candidate of the plan's run folder."""

    def call(plan: Plan, trial: str, recipe: Recipe) -> Candidate:
        short = recipe.recovery < 1
        made = build_candidate(
            recipe.layers,
            recipe.engine,
            recipe.precision,
            metric=0.95 - 0.02 * (6 - recipe.depth) - 0.05 * short,
            p99_ms=(3.0 if recipe.engine == "torch" else 1.0) * recipe.depth,
            rejection=short_reason(recipe) if short else None,
            recipe=recipe,
            recipe_hash=recipe_hash(recipe),
        )
        RunFolder(plan.folder).put(made.model_dump(mode="json"), "candidates", f"{made.recipe_hash}.json")
        plan.ended(trial, candidate=made.recipe_hash)
        return made

    return call


def search_of(**changes: float) -> tuple[SearchConfig, Space]:
    values = {"engines": ["torch", "onnxruntime"], "precisions": ["fp32", "int8"], "trials": 9} | changes
    search = SearchConfig.model_validate(values)
    return search, Space(search, 6)


def open_plan(folder: Path, **changes: float) -> tuple[Plan, Space]:
    search, space = search_of(**changes)
    limits = Limits(search, min(search.trials, space.size), frozenset(), None)
    finished = RunFolder(folder).candidates()
    return Plan(limits, str(folder), finished, [space.teacher], space.anchors()), space


def play(
    plan: Plan, space: Space, finish: Finish, at_once: int, kill_after: int | None = None
) -> list[Recipe]:
    """Run a plan with so many trials at once, each ending in the order it began; what was measured."""
    every = [
        space.recipe({"structure": structure, "runtime": runtime})
        for structure in space.structures
        for runtime in space.runtimes
    ]
    done: list[Recipe] = []
    proposed = itertools.cycle(every)
    waiting: list[tuple[str, Recipe]] = []
    for number in range(500):
        if kill_after is not None and len(done) >= kill_after:
            return done
        step = plan.next() if len(waiting) < at_once else "wait"
        if step == "done":
            for trial, recipe in waiting:
                finish(plan, trial, recipe)
                done.append(recipe)
            return done
        if step == "wait":
            assert waiting, "a plan that waits for nothing"
            trial, recipe = waiting.pop(0)
            finish(plan, trial, recipe)
            done.append(recipe)
            continue
        recipe = plan.recovered(next(proposed)) if step == "ask" else step
        plan.started(str(number), recipe)
        waiting.append((str(number), recipe))
    raise AssertionError("the plan never ends")


def test_the_teacher_comes_first_then_the_anchors(tmp_path: Path) -> None:
    plan, space = open_plan(tmp_path)
    found = [plan.next() for _ in range(4)]
    assert found == space.anchors()[:4]


@settings(max_examples=15, deadline=None)
@given(at_once=st.integers(1, 4), trials=st.integers(1, 16), short=st.sampled_from([1.0, 0.25]))
def test_it_measures_as_many_as_are_wanted_and_every_promotion(
    at_once: int, trials: int, short: float, finish: Finish, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    plan, space = open_plan(folder, trials=trials, short_recovery=short)
    done = play(plan, space, finish, at_once)
    points = {recipe_hash(in_full(recipe)) for recipe in done}
    assert len(points) == plan.limits.wanted
    assert plan.complete
    assert {recipe.recovery for recipe in done if not recipe.distilled} <= {1.0}
    if short == 1:
        assert {recipe.recovery for recipe in done} == {1.0}
    elif any(recipe.recovery < 1 for recipe in done):
        # A full recovery comes after the short one of its structure, or out of one that was full already.
        assert any(recipe.recovery == 1 and recipe.distilled for recipe in done)


@settings(max_examples=15, deadline=None)
@given(kill_after=st.integers(0, 12))
def test_killed_anywhere_and_run_again_it_repeats_nothing_and_ends_the_same(
    kill_after: int, finish: Finish, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def run(name: str, kill: int | None) -> tuple[set[Recipe], set[Recipe]]:
        folder = tmp_path_factory.mktemp(name)
        plan, space = open_plan(folder, short_recovery=0.25, trials=1000)
        before = set(play(plan, space, finish, 1, kill))
        if kill is None:
            return before, before
        plan, space = open_plan(folder, short_recovery=0.25, trials=1000)
        play(plan, space, finish, 1)
        return before, {candidate.recipe for candidate in RunFolder(folder).candidates()}

    _, whole = run("whole", None)
    before, after = run("killed", kill_after)
    assert before <= after
    # Every recipe of the space is measured either way; which are promoted is decided by the same rung.
    assert {in_full(recipe) for recipe in after} == {in_full(recipe) for recipe in whole}


def test_what_another_trial_recovers_in_full_is_not_recovered_shortly(tmp_path: Path) -> None:
    plan, space = open_plan(tmp_path, short_recovery=0.25)
    student = next(recipe for recipe in space.anchors() if recipe.distilled)
    assert plan.recovered(student).recovery == 0.25
    plan.started("a", student)
    assert plan.recovered(student.model_copy(update={"engine": "torch"})).recovery == 1


def test_recipes_of_the_config_are_recovered_in_full_at_once(tmp_path: Path) -> None:
    search, space = search_of(short_recovery=0.25)
    written = [recipe for recipe in space.anchors() if recipe.distilled][:1]
    plan = Plan(Limits(search, 9, frozenset(), None), str(tmp_path), (), [space.teacher, *written], [])
    assert [plan.next(), plan.next()] == [space.teacher, *written]


def test_a_limit_ends_it_and_what_is_under_way_is_not_forgotten(tmp_path: Path, finish: Finish) -> None:
    plan, _ = open_plan(tmp_path)
    first = plan.next()
    assert isinstance(first, Recipe)
    plan.started("a", first)
    plan.limits = Limits(plan.limits.search, 9, frozenset(), time.monotonic() - 1)
    assert plan.next() == "done"
    assert plan.reason == "time"
    finish(plan, "a", first)
    assert list(plan.measured) == [recipe_hash(first)]


def test_what_was_dropped_is_no_candidate_and_is_not_waited_for(tmp_path: Path) -> None:
    plan, space = open_plan(tmp_path)
    student = next(recipe for recipe in space.anchors() if recipe.distilled)
    plan.started("a", student)
    plan.ended("a", dropped=True)
    assert (plan.measured, plan.dropped) == ({}, {recipe_hash(student)})


def test_a_plan_is_written_to_disk_with_its_searcher(tmp_path: Path, finish: Finish) -> None:
    plan, space = open_plan(tmp_path, short_recovery=0.25)
    play(plan, space, finish, 2, kill_after=4)
    read = pickle.loads(pickle.dumps(plan))  # noqa: S301 - its own pickle
    assert read.next() == plan.next()
