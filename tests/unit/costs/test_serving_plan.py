from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import flat_capacity
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import load_prices, replica_usd_per_hour
from equipoise.costs.profiles import PROFILES, load_profile
from equipoise.costs.serving_plan import (
    HOURS_PER_MONTH,
    hourly_replicas,
    plan_serving,
    replicas_needed,
    serving_usd_per_1k,
)
from equipoise.errors import ConfigError
from equipoise.runs import CostTerms

BOOK = load_prices(CostConfig())
RATES = st.floats(1e-2, 1e5)
TRAFFIC = st.builds(
    CostConfig,
    rps=RATES,
    profile=st.sampled_from(PROFILES),
    min_replicas=st.integers(1, 5),
    node=st.sampled_from(sorted(BOOK.nodes)),
    replica_cores=st.floats(0.25, 2),
    whole_nodes=st.booleans(),
)


def terms(cost: CostConfig, **changes: Any) -> CostTerms:
    values: dict[str, Any] = {
        "cost": cost,
        "book": BOOK,
        "throughput_rps": 50.0,
        "stored_bytes": 10**8,
        "training_core_seconds": 3600.0,
        "search_core_seconds": 7200.0,
        "labelled_rows": 100,
    }
    return price_candidate(**{**values, **changes})


@given(rps=RATES, capacity=RATES)
def test_constant_traffic_is_replicas_times_price(rps: float, capacity: float) -> None:
    cost = CostConfig(rps=rps)
    plan = plan_serving(cost, BOOK, flat_capacity(capacity))
    replicas, usd_per_hour = replicas_needed(rps, capacity), replica_usd_per_hour(BOOK, cost)

    assert plan.peak_replicas == plan.mean_replicas == replicas
    assert plan.usd_month == pytest.approx(replicas * usd_per_hour * 730)
    assert plan.usd_per_1k == pytest.approx(serving_usd_per_1k(replicas, usd_per_hour, rps))


def test_office_hours_by_hand() -> None:
    """At 50/s on average: 159.1/s for 40 hours of the week (4 replicas of 40), else 15.9/s (1 of them)."""
    cost = CostConfig(rps=50, profile="office-hours", node="aws/c7a.xlarge")
    plan = plan_serving(cost, BOOK, flat_capacity(40))

    assert plan.peak_replicas == 4
    assert plan.mean_replicas == pytest.approx((40 * 4 + 128 * 1) / 168)
    assert plan.usd_month == pytest.approx(288 / 168 * 0.20528 / 4 * 730)
    # Four replicas fill a node; the one of the quiet hours leaves three quarters of it idle.
    assert plan.peak_nodes == 1
    assert plan.node_idle_usd_month == pytest.approx(128 / 168 * 0.75 * 0.20528 * 730)


def test_bursts_stand_all_day() -> None:
    plan = plan_serving(CostConfig(rps=28, profile="bursts"), BOOK, flat_capacity(50))

    assert plan.peak_replicas == plan.mean_replicas == 2  # 28 / 1.4 x 5 = 100 requests a second


def test_replicas_that_stay_up_are_paid_for() -> None:
    plan = plan_serving(CostConfig(rps=1, min_replicas=3), BOOK, flat_capacity(50))

    assert plan.peak_replicas == plan.mean_replicas == 3


def test_spot_nodes_cost_their_spot_price() -> None:
    node = BOOK.node("aws/c7i.large")
    assert node.spot_usd_per_hour is not None
    spot = plan_serving(CostConfig(spot=True), BOOK, flat_capacity(50))
    on_demand = plan_serving(CostConfig(), BOOK, flat_capacity(50))

    assert spot.usd_month / on_demand.usd_month == pytest.approx(node.spot_usd_per_hour / node.usd_per_hour)


def test_a_node_without_a_spot_price_is_refused(tmp_path: Any) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text("nodes: {lab/box: {vcpus: 8, memory_gib: 32, usd_per_hour: 0.2}}\n")
    cost = CostConfig(prices=str(own), node="lab/box", spot=True)
    with pytest.raises(ConfigError, match=r"cost\.node: has no spot price in the book \(got 'lab/box'\)"):
        plan_serving(cost, load_prices(cost), flat_capacity(50))


def test_a_gpu_of_eight_takes_an_eighth(tmp_path: Any) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text("nodes: {lab/dgx: {vcpus: 224, memory_gib: 2048, gpus: 8, usd_per_hour: 80}}\n")
    cost = CostConfig(prices=str(own), node="lab/dgx", replica_cores=4, replica_gpus=1, rps=90)
    plan = plan_serving(cost, load_prices(cost), flat_capacity(10))

    assert plan.usd_per_hour == pytest.approx(10)
    assert (plan.peak_replicas, plan.peak_nodes) == (9, 2)
    assert plan.node_idle_usd_month == pytest.approx(7 * 10 * 730)


@given(cost=TRAFFIC, capacity=RATES)
def test_shares_and_idle_make_whole_nodes(cost: CostConfig, capacity: float) -> None:
    plan = plan_serving(cost, BOOK, flat_capacity(capacity))
    profile = load_profile(cost.profile)
    replicas = hourly_replicas(cost, flat_capacity(capacity), profile)
    node = BOOK.node(cost.node)
    per_node = int(node.usd_per_hour / plan.usd_per_hour * (1 + 1e-9))
    nodes = np.ceil(replicas / per_node)

    shares = plan.mean_replicas * plan.usd_per_hour * HOURS_PER_MONTH
    assert shares + plan.node_idle_usd_month == pytest.approx(nodes.mean() * node.usd_per_hour * 730)
    assert plan.usd_month == pytest.approx(shares + plan.node_idle_usd_month * cost.whole_nodes)
    assert plan.peak_nodes == nodes.max()


@given(cost=TRAFFIC, more=st.floats(1, 1e3))
def test_the_total_never_falls_with_traffic(cost: CostConfig, more: float) -> None:
    busier = cost.model_copy(update={"rps": cost.rps * more})

    assert terms(busier).total_usd >= terms(cost).total_usd * (1 - 1e-12)


@given(
    cost=TRAFFIC, factor=st.floats(1, 100), group=st.sampled_from(["nodes", "storage", "label", "engineer"])
)
def test_the_total_never_falls_with_a_price(cost: CostConfig, factor: float, group: str) -> None:
    values = BOOK.model_dump()
    entries = values[group].values() if group in ("nodes", "storage") else [values[group]]
    for entry in entries:
        entry.update({key: usd * factor for key, usd in entry.items() if "usd" in key and usd})
    dearer = type(BOOK).model_validate(values)

    assert terms(cost, book=dearer).total_usd >= terms(cost).total_usd * (1 - 1e-12)


@given(cost=TRAFFIC, months=st.floats(0.1, 60), share=st.floats(0.01, 0.99))
def test_splitting_a_period_changes_no_sum(cost: CostConfig, months: float, share: float) -> None:
    """What runs by the month adds up over parts of the horizon; what is paid once is the same in each."""
    cost = cost.model_copy(update={"engineer_hours_per_month": 3.0, "retrainings_per_year": 2.0})
    whole, first, second = (
        terms(cost.model_copy(update={"horizon_months": part}))
        for part in (months, months * share, months * (1 - share))
    )
    for name in ("compute_serving_usd", "storage_usd", "maintenance_usd"):
        assert getattr(first, name) + getattr(second, name) == pytest.approx(getattr(whole, name))
    for name in ("compute_training_usd", "compute_search_usd", "data_usd", "serving_usd_per_1k"):
        assert getattr(first, name) == getattr(second, name) == getattr(whole, name)


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cost\.profile"):
        plan_serving(CostConfig(profile="weekly"), BOOK, flat_capacity(50))
