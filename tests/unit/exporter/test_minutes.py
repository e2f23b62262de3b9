from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import flat_capacity
from equipoise.costs.ledger_lines import node_line, usage_line
from equipoise.costs.price_book import load_prices
from equipoise.exporter.minutes import Minute, Minutes, idle_share
from equipoise.exporter.run_plan import RunPlan

BOOK = load_prices(CostConfig())
NODE = "aws/c7i.large"
HOUR_USD = 0.08925


def put(minutes: Minutes, start: float, stop: float, cores: float | None, **options: Any) -> None:
    """A node line, or a line of what ran on it."""
    common: dict[str, Any] = {"run_id": "r", "node": NODE, "book": BOOK, "start": start, "stop": stop}
    if cores is None:
        line = node_line(**common, component="pipeline")
    else:
        options = {"charge_class": "workload", "component": "serving", **options}
        line = usage_line(**common, cores=cores, **options)
    minutes.add(line, start, stop)


def replica(minutes: Minutes, start: float, stop: float, requests: int, model: str = "demo") -> None:
    put(minutes, start, stop, 1, resource_type="replica", detail=model, requests=requests)


def test_a_line_counts_in_each_minute_by_its_share() -> None:
    minutes = Minutes()
    replica(minutes, 30, 90, 60)
    first, second = minutes.kept[0].served["demo"], minutes.kept[1].served["demo"]

    assert (first.requests, second.requests) == (30, 30)
    assert first.usd == second.usd == pytest.approx(HOUR_USD / 2 / 120)


def test_only_whole_minutes_of_the_window_count() -> None:
    minutes = Minutes()
    for number in range(10):
        replica(minutes, 60 * number, 60 * number + 60, number)
    # At 9:30 the last five whole minutes are 4 to 8.
    assert sum(m.served["demo"].requests for m in minutes.last(5, 9.5 * 60)) == 4 + 5 + 6 + 7 + 8
    assert sum(m.served["demo"].requests for m in minutes.last(1440, 9.5 * 60)) == sum(range(9))


def test_idle_share_is_minute_by_minute() -> None:
    minutes = Minutes()
    put(minutes, 0, 120, None)
    put(minutes, 0, 60, 2)
    # Twice what the node has in one minute does not fill the other.
    put(minutes, 0, 60, 2)
    put(minutes, 60, 120, 1)
    put(minutes, 60, 120, 1, charge_class="idle")

    assert idle_share(minutes.last(2, 120)) == pytest.approx(0.25)
    assert idle_share([]) is None


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0.001, 900)), min_size=1, max_size=10))
def test_no_dollar_is_lost_between_minutes(spans: list[tuple[float, float]]) -> None:
    minutes = Minutes()
    for start, length in spans:
        put(minutes, start, start + length, None)
    whole = sum(
        node_line(
            run_id="r", component="pipeline", node=NODE, book=BOOK, start=start, stop=start + length
        ).billed_cost_usd
        for start, length in spans
    )  # fmt: skip

    assert sum(usd for m in minutes.kept.values() for usd in m.nodes_usd.values()) == pytest.approx(whole)


def test_the_teacher_is_charged_for_the_time_that_was_served() -> None:
    minutes = Minutes()
    # 15 seconds of a minute, at 100 requests a second.
    replica(minutes, 10, 20, 1000)
    replica(minutes, 20, 25, 500)
    plan = RunPlan("demo", 1, 0.0, 0.0, teacher=flat_capacity(45.0), replica_usd_per_hour=0.06)
    (minute,) = minutes.kept.values()

    # The teacher takes three replicas for it.
    assert plan.saved_usd(minute) == pytest.approx(3 * 0.06 * 15 / 3600 - HOUR_USD / 2 * 15 / 3600)
    assert plan.saved_usd(Minute()) == 0


def test_old_minutes_are_handed_over_once() -> None:
    minutes = Minutes()
    for number in range(4):
        replica(minutes, 60 * number, 60 * number + 60, number)
    taken: list[float] = []
    for _ in range(2):
        minutes.drop_before(2, lambda minute: taken.append(minute.served["demo"].requests))

    assert taken == [0, 1]
    assert sorted(minutes.kept) == [2, 3]
