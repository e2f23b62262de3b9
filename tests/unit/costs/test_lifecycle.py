from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from equipoise.config.cost import CostConfig
from equipoise.costs.lifecycle import price_candidate, replicas_needed, serving_usd_per_1k
from equipoise.costs.price_book import PriceBook, load_prices
from equipoise.errors import ConfigError, EquipoiseError
from equipoise.runs import CostTerms

BOOK = load_prices(CostConfig())
RATES = st.floats(1e-3, 1e6)


def price(cost: CostConfig, book: PriceBook = BOOK, **changes: Any) -> CostTerms:
    return price_candidate(
        **{
            "cost": cost,
            "book": book,
            "throughput_rps": 50.0,
            "stored_bytes": 2 * 10**9,
            "training_core_seconds": 3600.0,
            "search_core_seconds": 7200.0,
            "labelled_rows": 1000,
            **changes,
        }
    )


def dearer(factor: float) -> PriceBook:
    """The shipped book with every price multiplied."""
    values = BOOK.model_dump()
    entries = [*values["nodes"].values(), *values["storage"].values(), values["label"], values["engineer"]]
    for entry in entries:
        entry.update({key: amount * factor for key, amount in entry.items() if "usd" in key and amount})
    return PriceBook.model_validate(values)


def test_the_four_terms_by_hand() -> None:
    cost = CostConfig(
        rps=100, horizon_months=6, engineer_hours_per_month=3, retrainings_per_year=4, target_utilization=0.8
    )
    terms = price(cost)

    assert terms.replicas == 3  # 100 rps over 50 x 0.8 each
    assert terms.compute_training_usd == pytest.approx(0.08925 / 2)
    assert terms.compute_search_usd == pytest.approx(0.08925)
    assert terms.serving_usd_month == pytest.approx(3 * 0.08925 / 2 * 730)
    assert terms.compute_serving_usd == pytest.approx(6 * terms.serving_usd_month)
    assert terms.storage_usd == pytest.approx(2 * 0.023 * 6)
    assert terms.data_usd == pytest.approx(1000 * 0.10)
    assert terms.maintenance_usd == pytest.approx(3 * 100 * 6 + 2 * terms.compute_training_usd)
    assert terms.serving_usd_per_1k == pytest.approx(3 * 0.08925 / 2 / 360)
    requests = 100 * 3600 * 730 * 6
    assert terms.total_usd_per_1k == pytest.approx(terms.total_usd / requests * 1000)


def test_labels_of_the_config_come_before_the_rows() -> None:
    assert price(CostConfig(labelled_rows=10)).data_usd == pytest.approx(1)
    assert price(CostConfig(labelled_rows=0)).data_usd == 0


def test_training_is_priced_at_its_own_node() -> None:
    cost = CostConfig(training_node="aws/g5.xlarge")

    assert price(cost).compute_training_usd == pytest.approx(1.006 / 4)


def test_an_unknown_node_is_refused() -> None:
    with pytest.raises(ConfigError, match="not in the price book"):
        price(CostConfig(training_node="aws/none"))


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    with pytest.raises(EquipoiseError, match="capacity_rps"):
        replicas_needed(10, rate)
    with pytest.raises(EquipoiseError, match="rps"):
        serving_usd_per_1k(1, 1.0, rate)


@given(rps=RATES, capacity=RATES)
def test_replicas_carry_the_rate_and_one_fewer_would_not(rps: float, capacity: float) -> None:
    replicas = replicas_needed(rps, capacity)

    assert replicas >= 1
    assert replicas * capacity >= rps * (1 - 1e-8)
    assert replicas == 1 or (replicas - 1) * capacity < rps


@given(replicas=st.integers(1, 10_000), capacity=RATES)
def test_a_rate_of_whole_replicas_takes_no_further_one(replicas: int, capacity: float) -> None:
    assert replicas_needed(replicas * capacity, capacity) == replicas
    assert replicas_needed(replicas * capacity * (1 + 1e-12), capacity) == replicas


@given(rps=RATES, more=st.floats(1, 1e3), capacity=RATES)
def test_replicas_never_fall_with_traffic(rps: float, more: float, capacity: float) -> None:
    assume(rps * more <= 1e9)

    assert replicas_needed(rps * more, capacity) >= replicas_needed(rps, capacity)


@given(rps=RATES, more=st.floats(1, 1e3))
def test_the_total_never_falls_with_traffic(rps: float, more: float) -> None:
    assert price(CostConfig(rps=rps * more)).total_usd >= price(CostConfig(rps=rps)).total_usd


@given(factor=st.floats(1.001, 100), rps=RATES)
def test_the_total_scales_with_prices(factor: float, rps: float) -> None:
    cost = CostConfig(rps=rps, engineer_hours_per_month=1, retrainings_per_year=1)
    base, raised = price(cost), price(cost, dearer(factor))

    assert raised.total_usd > base.total_usd
    assert raised.total_usd == pytest.approx(base.total_usd * factor)
    assert raised.replicas == base.replicas


@given(throughput=st.floats(0.1, 1e5), faster=st.floats(1, 100))
def test_a_faster_replica_never_costs_more(throughput: float, faster: float) -> None:
    cost = CostConfig()
    slow, fast = price(cost, throughput_rps=throughput), price(cost, throughput_rps=throughput * faster)

    assert fast.serving_usd_per_1k <= slow.serving_usd_per_1k


@given(rps=RATES, throughput=st.floats(0.1, 1e5))
def test_serving_per_request_agrees_with_serving_over_the_horizon(rps: float, throughput: float) -> None:
    terms = price(CostConfig(rps=rps), throughput_rps=throughput)
    requests = rps * 3600 * 730 * 12

    assert terms.serving_usd_per_1k * requests / 1000 == pytest.approx(terms.compute_serving_usd)
