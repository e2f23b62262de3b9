from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config.cost import CostConfig
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import load_prices
from equipoise.costs.repricing import reprice_at
from equipoise.runs import CostTerms

BOOK = load_prices(CostConfig())
RATES = st.floats(1e-3, 1e6)


def price(rps: float, throughput_rps: float) -> tuple[CostConfig, CostTerms]:
    cost = CostConfig(rps=rps, horizon_months=9, engineer_hours_per_month=1, retrainings_per_year=4)
    terms = price_candidate(
        cost=cost,
        book=BOOK,
        throughput_rps=throughput_rps,
        stored_bytes=10**8,
        training_core_seconds=3600,
        search_core_seconds=7200,
        labelled_rows=1000,
    )
    return cost, terms


def assert_same(found: CostTerms, wanted: CostTerms, rel: float) -> None:
    words = {"profile", "p99_ms"}
    assert found.model_dump(include=words) == wanted.model_dump(include=words)
    assert found.model_dump(exclude=words) == pytest.approx(wanted.model_dump(exclude=words), rel=rel)


@given(before=RATES, after=RATES, throughput_rps=st.floats(1, 1e5))
def test_a_new_rate_gives_what_pricing_at_that_rate_gives(
    before: float, after: float, throughput_rps: float
) -> None:
    cost, terms = price(before, throughput_rps)
    _, wanted = price(after, throughput_rps)
    found = reprice_at(after, terms, throughput_rps=throughput_rps, cost=cost, book=BOOK)
    assert_same(found, wanted, rel=1e-9)


@given(rps=RATES, throughput_rps=st.floats(1, 1e5))
def test_the_same_rate_changes_nothing(rps: float, throughput_rps: float) -> None:
    cost, terms = price(rps, throughput_rps)
    found = reprice_at(rps, terms, throughput_rps=throughput_rps, cost=cost, book=BOOK)
    assert_same(found, terms, rel=1e-12)
