"""The export against the rules of FOCUS 1.0, read back with other readers than it was written with."""

from __future__ import annotations

import csv
import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from equipoise.costs.ledger import read_ledger
from equipoise.costs.ledger_focus import COLUMNS, FOCUS_COLUMNS, export_focus
from equipoise.costs.ledger_lines import node_line, storage_line, usage_line
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.errors import ConfigError, StorageError
from equipoise.runs import RunFolder

Writer = Callable[[str], LedgerWriter]

# The columns that a FOCUS 1.0 data set must have, and what their values may be, from the specification.
NOT_NULL = {
    "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost",
    "InvoiceIssuerName", "ListCost", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
}  # fmt: skip
DECIMALS = {
    "BilledCost", "ConsumedQuantity", "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "ListCost",
    "ListUnitPrice", "PricingQuantity",
}  # fmt: skip
TIMES = {"BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart"}
ALLOWED = {
    "BillingCurrency": {"USD"},
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"Compute", "Storage", "AI and Machine Learning"},
}


@pytest.fixture
def run_with_lines(writer: Writer, run: RunFolder) -> RunFolder:
    """A month's end in the middle of a block, an idle line, a stored artefact and a node."""
    new_year = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()
    with writer("driver") as ledger:
        options: dict[str, Any] = {"run_id": "tiny", "book": ledger.book}
        on_node = {**options, "component": "training", "node": ledger.node}
        ledger.add(
            usage_line(
                **on_node, charge_class="workload", cores=1, start=new_year - 900, stop=new_year + 2700,
                used_core_seconds=1800.0, detail='fine-tune, "the" teacher', resource_type="worker",
            )
        )  # fmt: skip
        ledger.add(usage_line(**on_node, charge_class="idle", cores=1, start=new_year, stop=new_year + 1e-3))
        ledger.add(node_line(**on_node, start=new_year, stop=new_year + 60))
        ledger.add(
            storage_line(
                **options, stored_bytes=10, start=new_year, stop=new_year + 1, resource_id="models/abc"
            )
        )
    return run


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_keeps_the_rules_of_the_specification(run_with_lines: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    assert export_focus(read_ledger(run_with_lines), str(path)) == 4
    rows = read_csv(path)

    assert len(rows) == 4
    for row in rows:
        assert row.keys() == set(COLUMNS) > set(FOCUS_COLUMNS) > NOT_NULL | DECIMALS | TIMES
        assert all(row[name] for name in NOT_NULL)
        for name in DECIMALS:
            assert re.fullmatch(r"-?\d+(\.\d+)?", row[name]), (name, row[name])
        for name in TIMES:
            assert row[name].endswith("Z")
            assert datetime.datetime.fromisoformat(row[name]).tzinfo is not None
        for name, allowed in ALLOWED.items():
            assert row[name] in allowed
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["BillingPeriodEnd"]
        assert row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert isinstance(json.loads(row["Tags"]), dict)
        assert re.fullmatch(r"(Core|GB)-(Hours|Months)", row["ConsumedUnit"])
        cost = float(row["PricingQuantity"]) * float(row["ListUnitPrice"])
        assert float(row["ListCost"]) == pytest.approx(cost)
        assert not row["CommitmentDiscountId"]


def test_a_row_ends_with_its_month_and_the_sums_stay(run_with_lines: RunFolder, tmp_path: Path) -> None:
    export_focus(read_ledger(run_with_lines), str(tmp_path / "bill.csv"), {"aws/c7i.large": "us-east-1"})
    before, after = read_csv(tmp_path / "bill.csv")[:2]

    assert before["ChargePeriodEnd"] == after["ChargePeriodStart"] == "2027-01-01T00:00:00Z"
    assert before["BillingPeriodStart"] == "2026-12-01T00:00:00Z"
    assert (float(before["ConsumedQuantity"]), float(after["ConsumedQuantity"])) == (0.25, 0.75)
    assert (float(before["x_UsedQuantity"]), before["x_Basis"]) == (0.125, "request")
    assert before["ChargeDescription"] == 'fine-tune, "the" teacher'
    assert before["RegionId"] == "us-east-1"
    billed = sum(line.billed_cost_usd for line in read_ledger(run_with_lines) if line.kind == "usage")
    assert sum(float(row["BilledCost"]) for row in read_csv(tmp_path / "bill.csv")) == pytest.approx(billed)


def test_parquet_holds_the_same(run_with_lines: RunFolder, tmp_path: Path) -> None:
    lines = read_ledger(run_with_lines)
    for name in ("bill.csv", "bill.parquet"):
        export_focus(lines, str(tmp_path / name))
    table = pq.read_table(tmp_path / "bill.parquet")

    assert table.column_names == list(COLUMNS)
    assert {str(table.schema.field(name).type) for name in DECIMALS} == {"double"}
    for name in ("ListCost", "ConsumedQuantity"):
        assert table[name].to_pylist() == [float(row[name]) for row in read_csv(tmp_path / "bill.csv")]
    assert table["ChargeClass"].null_count == 4


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither in \.csv nor in \.parquet"):
        export_focus([], str(tmp_path / "bill.xlsx"))


def test_nothing_half_written_stays(run_with_lines: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        export_focus(read_ledger(run_with_lines), str(tmp_path / "file" / "bill.csv"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []
