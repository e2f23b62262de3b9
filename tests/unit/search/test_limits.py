from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from equipoise.config import RunConfig
from equipoise.config.search import SearchConfig
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.runs import Candidate, RunFolder
from equipoise.search.limits import Limits, in_order, over_budget, spent_usd

Build = Callable[..., Candidate]


def limits(
    wanted: int = 9, anchors: Sequence[Candidate] = (), deadline_s: float | None = None, **search: float
) -> Limits:
    names = frozenset(candidate.recipe_hash for candidate in anchors)
    return Limits(SearchConfig(**search), wanted, names, deadline_s)


@pytest.fixture
def fleet(build_candidate: Build) -> list[Candidate]:
    """Teacher, a better one, a still better one, and two that add nothing."""
    return [
        build_candidate(rps=20),
        build_candidate(engine="openvino", precision="int8", rps=90, p99_ms=6, metric=0.949),
        build_candidate((0, 5), "openvino", "int8", rps=400, p99_ms=3, metric=0.948),
        build_candidate((0, 5), "onnxruntime", "int8", rps=300, p99_ms=4, metric=0.947),
        build_candidate((0,), "onnxruntime", "int8", rps=900, p99_ms=1, metric=0.7),
    ]


def test_a_search_goes_on_until_a_limit_is_reached(fleet: list[Candidate]) -> None:
    assert limits().reached(fleet, 99.0) is None
    assert limits(wanted=5).reached(fleet, 0) == "trials"
    assert limits(wanted=6).reached(fleet, 0) is None


def test_a_deadline_ends_it(fleet: list[Candidate]) -> None:
    assert limits(deadline_s=time.monotonic() - 1).reached(fleet, 0) == "time"
    assert limits(deadline_s=time.monotonic() + 60).reached(fleet, 0) is None


def test_dollars_end_it(fleet: list[Candidate]) -> None:
    assert limits(max_usd=0.5).reached(fleet, 0.49) is None
    assert limits(max_usd=0.5).reached(fleet, 0.5) == "budget"
    # A search that is complete is no failure, whatever it cost.
    assert limits(wanted=5, max_usd=0.5).reached(fleet, 9) == "trials"


def test_a_window_that_gains_nothing_ends_it(fleet: list[Candidate]) -> None:
    assert limits(window=2).reached(fleet, 0) == "gain"
    assert limits(window=3).reached(fleet, 0) is None
    assert limits(window=2).reached(fleet[:3], 0) is None


def test_the_window_starts_after_the_anchors(fleet: list[Candidate]) -> None:
    assert limits(window=2, anchors=fleet[:4]).reached(fleet, 0) is None
    assert limits(window=2, anchors=fleet[:3]).reached(fleet, 0) == "gain"


def test_an_anchor_that_was_dropped_is_not_waited_for(fleet: list[Candidate], build_candidate: Build) -> None:
    slow = build_candidate((0, 1, 2), "torch")
    waiting = limits(window=2, anchors=[*fleet[:3], slow])
    assert waiting.reached(fleet, 0) is None
    assert waiting.reached(fleet, 0, {slow.recipe_hash}) == "gain"


def test_a_short_recovery_and_its_full_one_are_one_candidate_and_it_gains_nothing(
    fleet: list[Candidate], build_candidate: Build
) -> None:
    shorts = [
        build_candidate(
            candidate.recipe.layers,
            metric=0.6,
            rejection="short",
            recipe=candidate.recipe.model_copy(update={"recovery": 0.25}),
            recipe_hash=f"short-{place}",
        )
        for place, candidate in enumerate(fleet[2:])
    ]
    assert limits(wanted=6).reached([*fleet, *shorts], 0) is None
    assert limits(wanted=5).reached([*fleet, *shorts], 0) == "trials"
    # After three that gained, three short ones are no window of nothing.
    assert limits(window=2).reached([*fleet[:3], *shorts], 0) is None


def test_a_gain_is_a_share_of_what_there_was(fleet: list[Candidate]) -> None:
    assert limits(window=1).reached(fleet[:3], 0) is None
    assert limits(window=1, min_gain=0.999).reached([*fleet[:2], fleet[3]], 0) is None
    assert limits(window=1, min_gain=0.999).reached([*fleet[:3], fleet[3]], 0) == "gain"


def test_without_a_teacher_no_gain_is_judged(fleet: list[Candidate]) -> None:
    assert limits(window=1).reached(fleet[1:], 0) is None


def test_the_order_of_measuring_is_the_order_on_record(fleet: list[Candidate]) -> None:
    stamped = [
        candidate.model_copy(update={"measured_at": f"2026-11-25T01:0{minute}:00.000+00:00"})
        for candidate, minute in zip(fleet, (4, 1, 3, 2, 0), strict=True)
    ]
    assert in_order(stamped) == [stamped[4], stamped[1], stamped[3], stamped[2], stamped[0]]


def test_what_was_spent_is_the_search_and_its_failures(
    tmp_path: Path, run_config: Callable[..., RunConfig]
) -> None:
    run = RunFolder(tmp_path / "run")
    clock = iter([0.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0]).__next__
    with LedgerWriter(run, run_config(), "driver", clock=clock) as ledger:
        with ledger.meter("search", cores=2, detail="good"):
            pass
        with pytest.raises(RuntimeError), ledger.meter("search", cores=2, detail="bad"):
            raise RuntimeError
        with ledger.meter("training", cores=2, detail="other"):
            pass
    assert spent_usd(run) == pytest.approx(2 * 2 * 100 * 0.08925 / 2 / 3600, rel=1e-6)


def test_over_budget_says_how_to_go_on() -> None:
    error = over_budget(SearchConfig(max_usd=0.5, trials=16), 0.61, 7, "runs/mine")
    assert error.exit_status == 4
    assert "search.max_usd: the search has spent $0.61 after 7 of 16 candidates (got 0.5)" in str(error)
    assert "`equipoise choose runs/mine` answers from what was measured" in error.remedy
