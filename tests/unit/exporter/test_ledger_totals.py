"""Sums over a ledger that grows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise.exporter.ledger_totals import CostKey, LedgerTotals

PutLines = Callable[..., Path]


def test_usage_lines_are_summed_by_run_component_term_and_basis(put_lines: PutLines) -> None:
    put_lines("driver/000000.jsonl", {"billed_cost_usd": 1.5}, {"billed_cost_usd": 0.5})
    put_lines("driver/000001.jsonl", {"kind": "node", "billed_cost_usd": 9})
    put_lines(
        "worker/000000.jsonl", {"charge_class": "overhead"}, {"component": "storage", "unit": "GB-months"}
    )
    run = put_lines(
        "worker/000001.jsonl", {"run_id": "other", "component": "search", "billed_cost_usd": 0.25}
    )
    totals = LedgerTotals(str(run))
    totals.refresh()
    assert totals.usd == {
        CostKey("tiny", "training", "compute", "workload"): 2.0,
        CostKey("tiny", "training", "compute", "overhead"): 1.0,
        CostKey("tiny", "storage", "storage", "workload"): 1.0,
        CostKey("other", "search", "compute", "workload"): 0.25,
    }
    assert totals.unreadable_lines == 0


def test_each_object_is_read_once(put_lines: PutLines) -> None:
    run = put_lines("driver/000000.jsonl", {})
    totals = LedgerTotals(str(run))
    totals.refresh()
    totals.refresh()
    key = CostKey("tiny", "training", "compute", "workload")
    assert totals.usd[key] == 1
    # An object never changes once it is put; what stands there now is not looked at again.
    put_lines("driver/000000.jsonl", {"billed_cost_usd": 100})
    put_lines("driver/000001.jsonl", {"billed_cost_usd": 2})
    totals.refresh()
    assert totals.usd[key] == 3
    shutil.rmtree(run / "ledger")
    totals.refresh()
    assert totals.usd[key] == 3


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "{}", "\udcff", '{"kind": "usage"}'],
)
def test_lines_that_cannot_be_read_are_counted_and_left_out(put_lines: PutLines, line: str) -> None:
    run = put_lines("driver/000000.jsonl", {}, {})
    content = (run / "ledger/driver/000000.jsonl").read_bytes()
    (run / "ledger/driver/000000.jsonl").write_bytes(content + line.encode("utf-8", "surrogateescape"))
    totals = LedgerTotals(str(run))
    totals.refresh()
    assert sum(totals.usd.values()) == 2
    assert totals.unreadable_lines == 1


def test_a_cost_that_is_not_quantity_times_price_is_left_out(put_lines: PutLines) -> None:
    run = put_lines("driver/000000.jsonl", {"effective_unit_price": 0.2}, {})
    totals = LedgerTotals(str(run))
    totals.refresh()
    assert (sum(totals.usd.values()), totals.unreadable_lines) == (1, 1)


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_cost_that_no_counter_can_hold_is_left_out(put_lines: PutLines, cost: float) -> None:
    run = put_lines("driver/000000.jsonl", {"billed_cost_usd": cost}, {})
    totals = LedgerTotals(str(run))
    totals.refresh()
    assert sum(totals.usd.values()) == 1
    assert totals.unreadable_lines == 1


def test_run_without_a_ledger_is_empty(tmp_path: Path) -> None:
    totals = LedgerTotals(str(tmp_path))
    totals.refresh()
    assert totals.usd == {}
