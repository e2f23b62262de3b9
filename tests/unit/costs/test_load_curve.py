from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import ReplicaCapacity, flat_capacity
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.load_curve import LoadCurve, break_even_rps, load_curve
from equipoise.costs.price_book import load_prices
from equipoise.costs.profiles import PROFILES, load_profile

BOOK = load_prices(CostConfig())


def curve(
    capacity_rps: float, other_usd: float, profile: str = "constant", node_usd: float = 1.0
) -> LoadCurve:
    """One replica a node at a dollar an hour over a month."""
    return LoadCurve(
        capacity=flat_capacity(capacity_rps),
        profile=load_profile(profile),
        share=1,
        node_usd_per_hour=node_usd,
        min_replicas=1,
        whole_nodes=False,
        months=1,
        other_usd=other_usd,
    )


@given(
    rps=st.floats(0.1, 1e4),
    profile=st.sampled_from(PROFILES),
    whole_nodes=st.booleans(),
    min_replicas=st.integers(1, 4),
)
def test_the_curve_goes_through_the_price_at_its_rate(
    rps: float, profile: str, whole_nodes: bool, min_replicas: int
) -> None:
    cost = CostConfig(
        rps=rps, profile=profile, whole_nodes=whole_nodes, min_replicas=min_replicas, node="aws/c7a.xlarge"
    )
    capacity = ReplicaCapacity((1, 4), (40.0, 60.0))
    terms = price_candidate(
        cost=cost, book=BOOK, throughput_rps=75, capacity=capacity, stored_bytes=10**8,
        training_core_seconds=10, search_core_seconds=10, labelled_rows=10,
    )  # fmt: skip
    found = load_curve(terms, capacity, cost, BOOK, load_profile(profile))
    rates = np.array([rps])

    assert found.serving_usd(rates)[0] == pytest.approx(terms.compute_serving_usd)
    assert found.total_usd(rates)[0] == pytest.approx(terms.total_usd)
    assert found.usd_per_1k(found.total_usd(rates), rates)[0] == pytest.approx(terms.total_usd_per_1k)
    assert found.mean_replicas(rates)[0] == pytest.approx(terms.mean_replicas)


def test_break_even_by_hand() -> None:
    """The teacher takes a replica for each 10/s, the student one for 100/s and 1,460 dollars of search: two
    replicas over a month. It pays as soon as the teacher needs four replicas, above 30/s."""
    student, teacher = curve(100, 1460), curve(10, 0)

    assert break_even_rps(student, teacher, 1000) == pytest.approx(30)
    # At exactly 30/s the teacher's three replicas cost what the student's one and its search do.
    at_30 = np.array([30.0])
    assert student.total_usd(at_30)[0] == teacher.total_usd(at_30)[0] == 2190


def test_cheaper_everywhere_and_cheaper_nowhere() -> None:
    assert break_even_rps(curve(100, 0, node_usd=0.5), curve(10, 0), 1000) == 0
    assert break_even_rps(curve(10, 0), curve(100, 0), 1000) is None
    assert break_even_rps(curve(10, 5), curve(10, 5), 1000) is None


@example(capacities=(401.0, 400.0), other=0.0, profile=PROFILES[0])
@example(capacities=(400.0, 399.0), other=0.0, profile=PROFILES[0])
@given(
    capacities=st.tuples(st.floats(5, 500), st.floats(5, 500)),
    other=st.floats(0, 5000),
    profile=st.sampled_from(PROFILES),
)
def test_above_the_break_even_it_is_cheaper_and_just_below_it_is_not(
    capacities: tuple[float, float], other: float, profile: str
) -> None:
    student, teacher = curve(max(capacities), other, profile), curve(min(capacities), 0, profile)
    rate = break_even_rps(student, teacher, 2000)
    if rate is None:
        high = np.array([2000.0])
        assert student.total_usd(high)[0] >= teacher.total_usd(high)[0] - 1e-6
        return
    first = min(max(rate, 0.01) * (1 + 1e-5), 2000)
    rates = np.append(np.geomspace(first, 2000, 200), first)
    assert (student.total_usd(rates) < teacher.total_usd(rates)).all()
    if rate > 0:
        below = np.array([rate * (1 - 1e-5)])
        assert student.total_usd(below)[0] >= teacher.total_usd(below)[0] - 1e-6
