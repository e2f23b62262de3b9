from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config.cost import CostConfig
from equipoise.costs.idle import CoreSeconds, idle_core_seconds
from equipoise.costs.ledger_lines import ChargeClass, node_line, usage_line
from equipoise.costs.price_book import load_prices
from equipoise.errors import ConfigError
from equipoise.runs import LedgerLine

BOOK = load_prices(CostConfig())
SMALL, LARGE = "aws/c7i.large", "aws/c7i.xlarge"  # 2 and 4 cores


def node(start: float, stop: float, name: str = SMALL, count: int = 1) -> LedgerLine:
    return node_line(
        run_id="r", component="pipeline", node=name, book=BOOK, start=start, stop=stop, count=count
    )


def usage(
    start: float, stop: float, cores: float, name: str = SMALL, charge_class: ChargeClass = "workload"
) -> LedgerLine:
    return usage_line(
        run_id="r", component="search", charge_class=charge_class, node=name, book=BOOK, cores=cores,
        start=start, stop=stop,
    )  # fmt: skip


def found(*lines: LedgerLine) -> tuple[float, float, float, float]:
    result = idle_core_seconds(lines, BOOK)
    return result.capacity, result.busy, result.idle, result.excess


def test_nothing_is_nothing() -> None:
    assert idle_core_seconds([], BOOK) == CoreSeconds(0, 0, 0, 0)


def test_usage_within_a_node_leaves_the_rest_idle() -> None:
    assert found(node(0, 100), usage(10, 60, 2), usage(60, 80, 1)) == pytest.approx((200, 120, 80, 0))


def test_a_doubled_line_is_an_excess_though_the_node_was_idle_at_another_time() -> None:
    line = usage(0, 50, 2)

    assert found(node(0, 100), line, line) == pytest.approx((200, 100, 100, 100))


def test_a_stretched_line_is_an_excess_beyond_the_node() -> None:
    assert found(node(0, 100), usage(50, 150, 2)) == pytest.approx((200, 100, 100, 100))


def test_usage_on_another_node_type_finds_no_capacity() -> None:
    assert found(node(0, 10), usage(0, 10, 2, LARGE)) == pytest.approx((20, 0, 20, 20))


def test_nodes_of_one_type_pool_their_cores() -> None:
    assert found(node(0, 10, count=3), usage(0, 10, 5)) == pytest.approx((60, 50, 10, 0))
    assert found(node(0, 10), node(5, 15), usage(0, 15, 2)) == pytest.approx((40, 30, 10, 0))


def test_node_types_are_added_up() -> None:
    lines = [node(0, 10), node(0, 10, LARGE), usage(0, 10, 1), usage(0, 10, 4, LARGE)]

    assert found(*lines) == pytest.approx((60, 50, 10, 0))


def test_quantity_without_time_is_an_excess() -> None:
    instant = usage(5, 5, 2).model_copy(update={"quantity": 7.0})

    assert found(node(0, 10), instant) == pytest.approx((20, 0, 20, 7))


def test_idle_lines_and_other_units_are_not_usage() -> None:
    stored = usage(0, 10, 2).model_copy(update={"unit": "GB-months"})

    assert found(node(0, 10), usage(0, 10, 2, charge_class="idle"), stored) == pytest.approx((20, 0, 20, 0))


def test_a_node_that_the_book_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="not in the price book"):
        idle_core_seconds([node(0, 10).model_copy(update={"resource": "aws/none"})], BOOK)


INTERVALS = st.tuples(st.integers(0, 200), st.integers(1, 100), st.integers(1, 4))


@given(nodes=st.lists(INTERVALS, max_size=6), usages=st.lists(INTERVALS, max_size=12))
def test_segments_agree_with_counting_second_by_second(
    nodes: list[tuple[int, int, int]], usages: list[tuple[int, int, int]]
) -> None:
    lines = [node(start, start + length, count=count) for start, length, count in nodes]
    lines += [usage(start, start + length, cores) for start, length, cores in usages]
    capacity, busy, idle, excess = found(*lines)

    offered = [sum(2 * c for s, n, c in nodes if s <= second < s + n) for second in range(300)]
    used = [sum(c for s, n, c in usages if s <= second < s + n) for second in range(300)]
    pairs = list(zip(offered, used, strict=True))
    assert capacity == pytest.approx(sum(offered))
    assert busy == pytest.approx(sum(min(pair) for pair in pairs))
    assert idle == pytest.approx(sum(max(o - u, 0) for o, u in pairs))
    assert excess == pytest.approx(sum(max(u - o, 0) for o, u in pairs))
    assert capacity == pytest.approx(busy + idle)


@given(cuts=st.lists(st.floats(0, 1e5), min_size=2, max_size=20, unique=True), cores=st.floats(0.1, 2))
def test_lines_that_meet_end_to_end_have_no_excess(cuts: list[float], cores: float) -> None:
    base = 1_800_000_000.0
    cuts = sorted(base + cut for cut in cuts)
    lines = [usage(start, stop, cores) for start, stop in itertools.pairwise(cuts)]

    assert idle_core_seconds([node(cuts[0], cuts[-1]), *lines], BOOK).excess == 0
