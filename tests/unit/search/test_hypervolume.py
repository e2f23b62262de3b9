from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from equipoise.runs import Candidate
from equipoise.search.hypervolume import hypervolume, positions, progress, reference_point

POINTS = st.tuples(st.integers(1, 12), st.integers(2, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1.2))
)
NAMES = ("metric", "robustness", "latency_p99_ms", "serving_usd_per_1k")


def test_volumes_by_hand() -> None:
    one, two = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75], [0.75, 0.25]])
    reference = np.ones(2)
    assert hypervolume(one, reference) == pytest.approx(0.25)
    assert hypervolume(two, reference) == pytest.approx(0.1875 + 0.1875 - 0.0625)
    assert hypervolume(np.array([[0.5, 1.0], [2.0, 0.1]]), reference) == 0


@given(points=POINTS)
def test_progress_never_falls_and_ends_at_the_whole(points: NDArray[np.float64]) -> None:
    reference = np.ones(points.shape[1])
    found = progress(points, reference)
    assert len(found) == len(points)
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(found))
    assert found[-1] == pytest.approx(hypervolume(points, reference))
    assert 0 <= found[-1] <= 1 + 1e-12


@given(points=POINTS, seed=st.integers(0, 99))
def test_the_order_and_the_dominated_have_no_effect(points: NDArray[np.float64], seed: int) -> None:
    reference = np.ones(points.shape[1])
    whole = hypervolume(points, reference)
    shuffled = np.random.default_rng(seed).permutation(points)
    worse = np.concatenate([points, points + 0.1])
    assert hypervolume(shuffled, reference) == pytest.approx(whole)
    assert hypervolume(worse, reference) == pytest.approx(whole)


def test_the_reference_is_five_points_below_the_teacher(build_candidate: Callable[..., Candidate]) -> None:
    teacher = build_candidate(metric=0.95, robustness=0.9, p99_ms=20)
    found = reference_point(teacher, NAMES)
    assert found[0] == pytest.approx(-0.90)
    assert found[1] == pytest.approx(-0.85)
    assert found[2] == pytest.approx(math.log(20))
    assert found[3] == pytest.approx(math.log(teacher.cost.serving_usd_per_1k))


def test_only_what_is_good_enough_and_cheaper_counts(build_candidate: Callable[..., Candidate]) -> None:
    teacher = build_candidate(rps=20)
    fast = build_candidate(engine="openvino", precision="int8", rps=400, p99_ms=5, metric=0.94)
    wrong = build_candidate((0,), "openvino", "int8", rps=900, p99_ms=1, metric=0.85)
    reference = reference_point(teacher, NAMES)
    assert hypervolume(positions([teacher, wrong], NAMES), reference) == 0
    assert hypervolume(positions([teacher, wrong, fast], NAMES), reference) > 0
