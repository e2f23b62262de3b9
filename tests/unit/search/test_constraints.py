from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config.search import ConstraintsConfig
from equipoise.runs import Candidate
from equipoise.search.constraints import CONSTRAINTS, bounds, excesses

ANY = ConstraintsConfig(max_drop=None)


def test_every_constraint_of_the_config_is_known() -> None:
    assert CONSTRAINTS.keys() == ConstraintsConfig.model_fields.keys()


def test_excesses_are_shares_of_the_bound(build_candidate: Callable[..., Candidate]) -> None:
    found = build_candidate(metric=0.92, drop=0.03, p99_ms=5, megabytes=30, robustness=0.8)
    constraints = ConstraintsConfig(max_drop=0.02, p99_ms=4, max_mb=40, min_robustness=1.0)
    expected = {"max_drop": 0.5, "p99_ms": 0.25, "min_robustness": 0.2}
    assert excesses(found, constraints) == pytest.approx(expected)
    assert excesses(found, ANY) == {}
    assert bounds(ANY) == {}


@given(bound=st.floats(0.01, 1e6), share=st.floats(0, 1))
def test_a_relaxed_constraint_is_met_by_all_that_met_it(
    bound: float, share: float, build_candidate: Callable[..., Candidate]
) -> None:
    found = build_candidate()
    for constraint in CONSTRAINTS.values():
        wider = constraint.relaxed(bound, share)
        assert constraint.excess(found, wider) <= constraint.excess(found, bound) or wider < 1e-2
        margin = constraint.margin(found, bound)
        assert margin is not None
        assert (margin >= 0) == (constraint.excess(found, bound) == 0)


def test_what_was_not_measured_is_infinitely_far(build_candidate: Callable[..., Candidate]) -> None:
    assert CONSTRAINTS["min_robustness"].excess(build_candidate(robustness=None), 0.1) == math.inf
    assert CONSTRAINTS["min_robustness"].margin(build_candidate(robustness=None), 0.1) is None


def test_a_relative_drop_is_held_against_the_teachers_metric(
    build_candidate: Callable[..., Candidate],
) -> None:
    relative = CONSTRAINTS["max_relative_drop"]
    assert relative.value(build_candidate(metric=0.045, drop=0.005)) == pytest.approx(0.1)
    assert relative.value(build_candidate(metric=0.055, drop=-0.005)) == pytest.approx(-0.1)
    assert relative.value(build_candidate(metric=0.0, drop=0.0)) is None
