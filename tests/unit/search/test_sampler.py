from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from equipoise.config.search import ConstraintsConfig, SearchConfig
from equipoise.runs import Candidate, Recipe
from equipoise.search.limits import Limits
from equipoise.search.plan import Plan
from equipoise.search.recovery import short_reason
from equipoise.search.space import Space

if TYPE_CHECKING:
    from equipoise.search.sampler import ConstrainedSearch

# Warnings of other packages about each other, at their own import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SEARCH = SearchConfig()
CONSTRAINTS = ConstraintsConfig(max_drop=None, p99_ms=6)
Measure = Callable[[Space, dict[str, Any]], Candidate]


@pytest.fixture
def measure(build_candidate: Callable[..., Candidate]) -> Measure:
    """A made-up world: p99 falls with the layers, and only int8 in OpenVINO is fast."""

    def call(space: Space, point: dict[str, Any]) -> Candidate:
        recipe = space.recipe(point)
        fast = (recipe.engine, recipe.precision) == ("openvino", "int8")
        return build_candidate(
            recipe.layers,
            recipe.engine,
            recipe.precision,
            metric=0.95 - 0.01 * (6 - recipe.depth),
            p99_ms=(1 if fast else 4) * recipe.depth,
            rps=(400 if fast else 50) / recipe.depth,
        )

    return call


def plan(search: SearchConfig, first: Sequence[Recipe] = ()) -> Plan:
    """One that never ends by itself."""
    return Plan(Limits(search, 1000, frozenset(), None), "", anchors=first)


def play(
    searcher: ConstrainedSearch,
    space: Space,
    measure: Measure,
    trials: int,
    search: SearchConfig = SEARCH,
    constraints: ConstraintsConfig = CONSTRAINTS,
) -> Iterator[tuple[dict[str, Any], Candidate]]:
    """Points that a searcher proposes, each told of what its candidate turned out to be."""
    from equipoise.search.sampler import report_of

    for number in range(trials):
        point = searcher.suggest(str(number))
        assert point.pop("recovery") == 1
        candidate = measure(space, point)
        searcher.on_trial_complete(str(number), report_of(candidate, search, constraints))
        yield point, candidate


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_the_first_points_are_proposed_first_and_every_trial_knows_its_constraints(
    sampler: str, measure: Measure
) -> None:
    from equipoise.search.sampler import build_searcher

    search = SearchConfig(sampler=sampler, trials=12)
    space = Space(search, 6)
    first = space.anchors()[:4]
    searcher = build_searcher(space, plan(search, first), 1)
    played = list(play(searcher, space, measure, 12))
    assert [space.recipe(point) for point, _ in played[:4]] == first
    assert all(space.recipe(point) for point, _ in played)
    for trial, (_, candidate) in zip(searcher._ot_study.trials, played, strict=True):
        excess = max(0.0, candidate.speed.latency_p99_ms.value - 6) / 6
        assert trial.constraints == {"p99_ms": pytest.approx(excess)}


def test_what_violates_a_constraint_is_proposed_less(measure: Measure) -> None:
    from equipoise.search.sampler import build_searcher

    # Objectives that know nothing of latency, and even prefer the slow, deep structures.
    search = SearchConfig(sampler="tpe", trials=20, objectives=("metric", "robustness"))
    space = Space(search, 6)

    def fitting(constraints: ConstraintsConfig) -> int:
        """How many of the last twenty of forty proposals are fast enough, over five seeds."""
        count = 0
        for seed in range(5):
            searcher = build_searcher(space, plan(search), seed)
            played = list(play(searcher, space, measure, 40, search, constraints))
            count += sum(candidate.speed.latency_p99_ms.value <= 6 for _, candidate in played[-20:])
        return count

    assert fitting(CONSTRAINTS) > 1.2 * fitting(ConstraintsConfig(max_drop=None))


def test_a_searcher_is_written_to_disk_and_read_back(tmp_path: Any, measure: Measure) -> None:
    from equipoise.search.sampler import build_searcher

    search = SearchConfig(trials=8)
    space = Space(search, 6)
    searcher = build_searcher(space, plan(search), 3)
    list(play(searcher, space, measure, 6))
    file = str(tmp_path / "searcher")
    searcher.save(file)
    other = build_searcher(space, plan(search), 3)
    other.restore(file)
    assert other.suggest("next") == searcher.suggest("next")


def test_what_may_not_be_chosen_is_worthless_and_violates_everything(
    build_candidate: Callable[..., Candidate],
) -> None:
    from equipoise.search.sampler import report_of

    search = SearchConfig()
    bounds = ConstraintsConfig(max_drop=0.01, p99_ms=6, min_robustness=0.5)
    good = report_of(build_candidate(p99_ms=3), search, bounds)
    assert (good["metric"], good["violation_p99_ms"], good["violation_max_drop"]) == (0.95, 0, 0)
    rejected = report_of(build_candidate(p99_ms=3, rejection="depends"), search, bounds)
    assert rejected["metric"] == rejected["robustness"] == 0
    assert {value for key, value in rejected.items() if key.startswith("violation_")} == {1e9}
    unknown = report_of(build_candidate(robustness=None), search, bounds)
    assert unknown["violation_min_robustness"] == 1e9


def test_a_short_recovery_tells_what_it_came_to(build_candidate: Callable[..., Candidate]) -> None:
    from equipoise.search.sampler import report_of

    short = build_candidate((0, 5)).recipe.model_copy(update={"recovery": 0.25})
    for rejection, metric in ((short_reason(short), 0.9), ("labels change", 0)):
        candidate = build_candidate((0, 5), metric=0.9, rejection=rejection, recipe=short)
        assert report_of(candidate, SEARCH, CONSTRAINTS)["metric"] == metric


def test_a_fault_is_worse_than_anything() -> None:
    from equipoise.search.sampler import report_of_fault

    told = report_of_fault(SearchConfig())
    assert told == {"metric": 0, "robustness": 0, "latency_p99_ms": 1e9, "serving_usd_per_1k": 1e9}


def test_what_was_too_slow_to_be_distilled_tells_its_latency(
    build_candidate: Callable[..., Candidate],
) -> None:
    from equipoise.search.sampler import report_of_dropped

    bounds = ConstraintsConfig(max_drop=0.01, p99_ms=8)
    told = report_of_dropped(build_candidate(p99_ms=20).speed, SearchConfig(), bounds)
    assert (told["latency_p99_ms"], told["metric"], told["serving_usd_per_1k"]) == (20, 0, 1e9)
    assert (told["violation_p99_ms"], told["violation_max_drop"]) == (1.5, 0)
