from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from equipoise.config.search import SearchConfig
from equipoise.runs import Candidate
from equipoise.search.frontier import directions, frontier, objective, pareto_mask

# Few different values, so that ties and equal rows are common.
LOSSES = st.tuples(st.integers(0, 30), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 4).map(float))
)
OBJECTIVES = SearchConfig().objectives


def dominates(left: NDArray[np.float64], right: NDArray[np.float64]) -> bool:
    return bool((left <= right).all() and (left < right).any())


@given(losses=LOSSES)
def test_no_member_is_dominated_and_everything_else_is_by_a_member(losses: NDArray[np.float64]) -> None:
    mask = pareto_mask(losses)
    members = losses[mask]
    assert not any(dominates(other, member) for member in members for other in losses)
    assert all(any(dominates(member, row) for member in members) for row in losses[~mask])


@given(losses=LOSSES, seed=st.integers(0, 999))
def test_the_order_of_the_rows_has_no_effect(losses: NDArray[np.float64], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(losses))
    assert pareto_mask(losses[order]).tolist() == pareto_mask(losses)[order].tolist()


@given(losses=LOSSES)
def test_equal_rows_share_their_fate(losses: NDArray[np.float64]) -> None:
    twice = np.concatenate([losses, losses])
    mask = pareto_mask(twice)
    assert mask[: len(losses)].tolist() == mask[len(losses) :].tolist() == pareto_mask(losses).tolist()


def test_a_small_frontier_by_hand() -> None:
    losses = np.array([[1, 4], [2, 2], [4, 1], [3, 3], [2, 2], [1, 5]], dtype=float)
    assert pareto_mask(losses).tolist() == [True, True, True, False, True, False]


def test_quality_is_raised_and_everything_else_lowered() -> None:
    names = ("metric", "robustness", "calibration", "latency_p99_ms", "serving_usd_per_1k", "bytes")
    assert directions(names) == ["max", "max", "min", "min", "min", "min"]


def test_objectives_are_the_reported_figures(build_candidate: Callable[..., Candidate]) -> None:
    found = build_candidate(metric=0.9, robustness=0.8, p99_ms=7, megabytes=12)
    assert objective(found, "metric") == 0.9
    assert objective(found, "robustness") == 0.8
    assert objective(found, "calibration") == 0.02
    assert objective(found, "latency_p99_ms") == 7
    assert objective(found, "serving_usd_per_1k") == found.cost.serving_usd_per_1k
    assert objective(found, "bytes") == 12e6
    assert objective(build_candidate(robustness=None), "robustness") == 0
    with pytest.raises(ValueError, match="unknown objective"):
        objective(found, "elegance")


def test_a_better_candidate_takes_another_off_the_frontier(build_candidate: Callable[..., Candidate]) -> None:
    teacher = build_candidate()
    fast = build_candidate(engine="openvino", precision="int8", rps=400, p99_ms=5)
    slow = build_candidate(engine="onnxruntime", precision="int8", rps=90, p99_ms=9, metric=0.94)
    small = build_candidate((0,), "openvino", "int8", rps=900, p99_ms=2, metric=0.8)
    for order in ([teacher, fast, slow, small], [small, slow, fast, teacher]):
        assert frontier(order, OBJECTIVES) == [small, fast]


def test_what_may_not_be_chosen_is_on_no_frontier(build_candidate: Callable[..., Candidate]) -> None:
    teacher = build_candidate()
    rejected = build_candidate(engine="onnxruntime", precision="int8_dynamic", rps=9000, rejection="depends")
    assert frontier([teacher, rejected], OBJECTIVES) == [teacher]
    assert frontier([rejected], OBJECTIVES) == []
    assert frontier([], OBJECTIVES) == []


def test_ten_thousand_rows_none_of_which_beats_another_all_stay() -> None:
    rows = np.abs(np.random.default_rng(0).normal(size=(10_000, 4)))
    sphere = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert pareto_mask(sphere).all()
    assert pareto_mask(np.concatenate([sphere, sphere + 0.01]))[10_000:].sum() == 0
