from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from equipoise.costs.ledger import read_ledger
from equipoise.costs.ledger_bill import BillRow, compare_bill, read_bill, require_billed
from equipoise.costs.ledger_focus import export_focus
from equipoise.costs.ledger_lines import iso_time, node_line, storage_line, usage_line
from equipoise.costs.ledger_settle import settle
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.errors import InputError, ReconcileError
from equipoise.runs import RunFolder

Writer = Callable[[str], LedgerWriter]
BASE = 1_800_000_000.0
NODE_USD = 0.08925


@pytest.fixture
def billed_run(writer: Writer, run: RunFolder) -> RunFolder:
    """Three hours of a node, some blocks on it, and a model that is kept."""
    draw = random.Random(5)  # noqa: S311
    with writer("node") as node, writer("driver") as ledger:
        options: dict[str, Any] = {"run_id": "tiny", "book": ledger.book}
        for beat in range(0, 10_800, 60):
            start = BASE + beat
            node.add(
                node_line(
                    **options, component="pipeline", node=node.node, start=start, stop=start + 60,
                    resource_id=node.name,
                )
            )  # fmt: skip
            ledger.add(
                usage_line(
                    **options, component="search", charge_class="workload", node=node.node, cores=1,
                    start=start, stop=start + draw.uniform(1, 60),
                )
            )  # fmt: skip
        ledger.add(
            storage_line(
                **options, stored_bytes=10**12, start=BASE, stop=BASE + 10_800, resource_id="models/abc"
            )
        )
    with writer("settle") as ledger:
        settle(run, ledger, ended=[node.name])
    return run


def write_bill(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    """A bill as a cloud writes it: a node by the hour."""
    defaults = {"BillingCurrency": "USD", "SkuId": "SKU123", "x_InstanceType": "", "Tags": ""}
    found = [{**defaults, **row} for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0].keys())
        writer.writeheader()
        writer.writerows(found)
    return str(path)


def hour(number: int, usd: float = NODE_USD, length_s: int = 3600, **changes: Any) -> dict[str, Any]:
    start = BASE + 3600 * number
    return {
        "BilledCost": usd,
        "ChargePeriodStart": iso_time(start),
        "ChargePeriodEnd": iso_time(start + length_s),
        "x_InstanceType": "c7i.large",
        **changes,
    }


def stored(usd: float) -> dict[str, Any]:
    return hour(0, usd, 10_800, x_InstanceType="", SkuId="s3-standard bytes")


STORED_USD = 1000 * 3 / 730 * 0.023


@pytest.mark.parametrize("name", ["bill.csv", "bill.parquet"])
def test_the_ledgers_own_export_agrees_with_it(billed_run: RunFolder, tmp_path: Path, name: str) -> None:
    location = str(tmp_path / name)
    export_focus(read_ledger(billed_run), location)
    found = compare_bill(billed_run, read_bill(location))

    assert not found.mismatches
    assert found.unmatched_rows == 0
    # The bill's longest charge is the artefact's three hours, so its periods are days.
    assert {check.resource for check in found.checks} == {"aws/c7i.large", "aws/s3-standard"}
    assert sum(check.bill_usd for check in found.checks) == pytest.approx(3 * NODE_USD + STORED_USD)


def test_a_clouds_bill_agrees_hour_by_hour(billed_run: RunFolder, tmp_path: Path) -> None:
    rows = [hour(number) for number in range(3)]
    parts = [
        {**hour(number, STORED_USD / 3), "x_InstanceType": "", "SkuId": "s3-standard"} for number in range(3)
    ]
    other = hour(1, 7.5, x_InstanceType="", SkuId="egress")
    # Another type's name holds ours.
    larger = hour(1, 9.0, x_InstanceType="c7i.large-flex")
    found = compare_bill(
        billed_run, read_bill(write_bill(tmp_path / "bill.csv", [*rows, *parts, other, larger]))
    )

    assert len(found.checks) == 6
    assert not found.mismatches
    assert (found.unmatched_rows, found.unmatched_usd) == (2, 16.5)
    require_billed(found, "bill.csv")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([hour(0), hour(1), hour(2, NODE_USD * 1.01)], "10:00Z to 2027-01-15T11:00Z"),
        ([hour(0), hour(2), hour(2)], "09:00Z to 2027-01-15T10:00Z"),
        ([hour(0), hour(1), hour(2), hour(3)], "11:00Z to 2027-01-15T12:00Z"),
    ],
)
def test_what_differs_is_named_with_period_and_resource(
    billed_run: RunFolder, tmp_path: Path, rows: list[dict[str, Any]], said: str
) -> None:
    kept = [
        {**hour(number, STORED_USD / 3), "x_InstanceType": "", "SkuId": "s3-standard"} for number in range(3)
    ]
    found = compare_bill(billed_run, read_bill(write_bill(tmp_path / "bill.csv", [*rows, *kept])))

    with pytest.raises(ReconcileError, match=f"aws/c7i.large from 2027-01-15T{said}") as caught:
        require_billed(found, "bill.csv")
    assert caught.value.exit_status == 5


def test_long_charges_are_compared_as_a_whole(billed_run: RunFolder, tmp_path: Path) -> None:
    month = 31 * 86_400
    rows = [hour(0, 3 * NODE_USD, month), hour(0, STORED_USD, month, x_InstanceType="", SkuId="s3-standard")]
    found = compare_bill(billed_run, read_bill(write_bill(tmp_path / "bill.csv", rows)))

    assert len(found.checks) == 2
    assert not found.mismatches


def test_tags_choose_the_charges(billed_run: RunFolder, tmp_path: Path) -> None:
    rows = [hour(number, Tags='{"run": "tiny", "team": "a"}') for number in range(3)]
    rows += [hour(number, Tags='{"run": "other"}') for number in range(3)]
    location = write_bill(tmp_path / "bill.csv", rows)

    assert len(read_bill(location)) == 6
    assert len(read_bill(location, {"run": "tiny"})) == 3
    with pytest.raises(InputError, match="no charge"):
        compare_bill(billed_run, read_bill(location, {"run": "nobody"}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"BillingCurrency": "EUR"}, "row 1: is not in US dollars"),
        ({"BilledCost": "much"}, "row 1: is no charge"),
        ({"BilledCost": "nan"}, "row 1: is no charge"),
        ({"ChargePeriodStart": "soon"}, "row 1: is no charge"),
        ({"ChargePeriodEnd": "2020-01-01T00:00:00Z"}, "row 1: is no charge"),
    ],
)
def test_damaged_bills_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    location = write_bill(tmp_path / "bill.csv", [hour(0) | changes])

    with pytest.raises(InputError, match=said) as caught:
        read_bill(location)
    assert caught.value.exit_status == 2


def test_what_is_no_bill_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for name, said in (("a.csv", "no column BilledCost"), ("a.parquet", "no CSV or"), ("b.csv", "be read")):
        with pytest.raises(InputError, match=said):
            read_bill(str(tmp_path / name))


def test_a_negative_charge_is_taken_for_the_refund_it_is(billed_run: RunFolder) -> None:
    rows = [BillRow(BASE, BASE + 3600, usd, "c7i.large") for usd in (2 * NODE_USD, -NODE_USD)]
    (check, *_) = compare_bill(billed_run, rows).checks

    assert check.bill_usd == pytest.approx(NODE_USD)
