from __future__ import annotations

from collections.abc import Callable

import pytest

from equipoise.runs import Candidate
from equipoise.search.recovery import in_full, is_short, promising, short_reason, structure_of

Build = Callable[..., Candidate]
NAMES = ("metric", "latency_p99_ms")


@pytest.fixture
def short(build_candidate: Build) -> Build:
    """`short((0, 5), metric=0.8, p99_ms=3)`: a candidate whose student saw a quarter of the epochs."""

    def build(layers: tuple[int, ...], **changes: float | str) -> Candidate:
        whole = build_candidate(layers, **{"engine": "openvino", "precision": "int8"} | changes)
        recipe = whole.recipe.model_copy(update={"recovery": 0.25})
        return whole.model_copy(
            update={
                "recipe": recipe,
                "recipe_hash": f"{recipe.label}",
                "eligible": False,
                "rejection": short_reason(recipe),
            }
        )

    return build


@pytest.fixture
def rung(build_candidate: Build, short: Build) -> list[Candidate]:
    """A teacher of 20 ms, and of three structures one that another beats on both counts."""
    return [
        build_candidate(),
        short((0, 5), metric=0.80, p99_ms=6.0),
        short((0, 1), metric=0.75, p99_ms=6.5),
        short((0,), metric=0.60, p99_ms=3.0),
    ]


def test_the_best_third_goes_on_once_there_are_three(rung: list[Candidate]) -> None:
    assert promising(rung[:3], NAMES) == []
    [found] = promising(rung, NAMES)
    assert found == in_full(rung[1].recipe)
    assert found.recovery == 1


def test_at_the_end_the_share_is_rounded_up(rung: list[Candidate], short: Build) -> None:
    assert [recipe.layers for recipe in promising(rung[:2], NAMES, last=True)] == [(0, 5)]
    more = [*rung, short((0, 1, 2), metric=0.85, p99_ms=12.0)]
    assert [recipe.layers for recipe in promising(more, NAMES)] == [(0, 5)]
    assert len({recipe.layers for recipe in promising(more, NAMES, last=True)}) == 2


def test_of_a_promoted_structure_what_no_other_dominates_goes_on(rung: list[Candidate], short: Build) -> None:
    same = [
        short((0, 5), engine="torch", precision="fp32", metric=0.82, p99_ms=9.0),
        short((0, 5), engine="onnxruntime", precision="fp32", metric=0.79, p99_ms=8.0),
    ]
    found = promising([*rung, *same], NAMES)
    assert {(recipe.engine, recipe.precision) for recipe in found} == {
        ("openvino", "int8"),
        ("torch", "fp32"),
    }


def test_what_the_teacher_beats_on_another_engine_never_goes_on(
    rung: list[Candidate], build_candidate: Build
) -> None:
    fast = build_candidate(engine="openvino", precision="int8", metric=0.95, p99_ms=1.0)
    assert promising([*rung, fast], NAMES, last=True) == []


def test_without_a_teacher_or_short_recoveries_nothing_goes_on(rung: list[Candidate]) -> None:
    assert promising(rung[1:], NAMES, last=True) == []
    assert promising(rung[:1], NAMES, last=True) == []


def test_what_is_rejected_for_another_reason_does_not_go_on(rung: list[Candidate]) -> None:
    assert is_short(rung[1])
    unstable = rung[1].model_copy(update={"rejection": "3% of labels change"})
    assert not is_short(unstable)
    assert in_full(unstable.recipe) not in promising([rung[0], unstable, *rung[2:]], NAMES, last=True)


def test_a_structure_is_what_its_runtimes_and_recoveries_share(rung: list[Candidate], short: Build) -> None:
    other = short((0, 5), engine="torch", precision="fp32")
    assert structure_of(other.recipe) == structure_of(in_full(rung[1].recipe))
    assert structure_of(other.recipe) != structure_of(rung[2].recipe)
