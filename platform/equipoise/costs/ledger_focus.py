"""The ledger as a FOCUS 1.0 data set (https://focus.finops.org), CSV or Parquet.

One row a usage line and calendar month; the nodes' own lines are left out, for what ran on them and
their idle time make them up. Beside the columns of the specification stand `x_` columns of ours, and
`ResourceID`, `Provider`, `Publisher`, `InvoiceIssuer` and `ChargeType`: the public validator's rules for
1.0 want these names, where the specification has `ResourceId`, `ProviderName`, `PublisherName`,
`InvoiceIssuerName` and `ChargeCategory`.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from equipoise import storage
from equipoise.costs.ledger_lines import line_period
from equipoise.errors import ConfigError
from equipoise.runs.records import LedgerLine

_PROVIDERS = {"aws": "AWS", "gcp": "Google Cloud", "azure": "Microsoft"}
_UNITS = {"core-seconds": ("Core-Hours", 3600.0), "GB-months": ("GB-Months", 1.0)}
"""FOCUS's name of a unit, and how many of ours it is."""

_NUMBERS = (
    "BilledCost",
    "EffectiveCost",
    "ContractedCost",
    "ListCost",
    "ConsumedQuantity",
    "PricingQuantity",
    "ListUnitPrice",
    "ContractedUnitPrice",
    "x_RequestedQuantity",
    "x_UsedQuantity",
)
_ALSO = {
    "ResourceID": "ResourceId",
    "Provider": "ProviderName",
    "Publisher": "PublisherName",
    "InvoiceIssuer": "InvoiceIssuerName",
    "ChargeType": "ChargeCategory",
}
FOCUS_COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
)
"""Columns of the specification that every data set must have; `AvailabilityZone` is optional."""
COLUMNS = (*FOCUS_COLUMNS, *_ALSO, "x_Component", "x_ChargeClass", "x_Basis", *_NUMBERS[-2:])


def export_focus(lines: Iterable[LedgerLine], location: str, regions: dict[str, str] | None = None) -> int:
    """Write usage lines as a FOCUS 1.0 file, whole or not at all; returns the number of rows.

    Args:
        location: a path or URI that ends in `.csv` or `.parquet`.
        regions: cloud region by resource, where the price book names one.

    Raises:
        ConfigError: neither `.csv` nor `.parquet`.
        StorageError: it cannot be written.
    """
    rows = focus_rows(lines, regions or {})
    content: Callable[[Iterator[dict[str, Any]]], tuple[bytes, int]]
    if location.endswith(".csv"):
        content = _csv
    elif location.endswith(".parquet"):
        content = _parquet
    else:
        raise ConfigError("ends neither in .csv nor in .parquet", where="--focus", value=location)
    written, count = content(rows)
    storage.put_bytes(location, written)
    return count


def focus_rows(lines: Iterable[LedgerLine], regions: dict[str, str]) -> Iterator[dict[str, Any]]:
    """FOCUS rows of usage lines, each cut at the months' ends, where its cost is split by time."""
    for line in lines:
        if line.kind == "usage":
            for begin, end, share in _by_month(line):
                yield _row(line, begin, end, share, regions.get(line.resource))


def _row(
    line: LedgerLine, begin: datetime.datetime, end: datetime.datetime, share: float, region: str | None
) -> dict[str, Any]:
    unit, per = _UNITS.get(line.unit, (line.unit, 1.0))
    quantity = line.quantity * share / per
    cost = line.billed_cost_usd * share
    month = begin.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    provider, _, _ = line.resource.partition("/")
    issuer = _PROVIDERS.get(provider, "own hardware")
    stored = line.unit == "GB-months"
    row: dict[str, Any] = {
        "BilledCost": cost,
        "BillingAccountId": line.run_id,
        "BillingAccountName": line.run_id,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _stamp(month),
        "BillingPeriodEnd": _stamp(_next_month(month)),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": line.detail or f"{line.component}, {line.charge_class}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _stamp(begin),
        "ChargePeriodEnd": _stamp(end),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "ContractedCost": quantity * line.effective_unit_price * per,
        "ContractedUnitPrice": line.effective_unit_price * per,
        "EffectiveCost": cost,
        "InvoiceIssuerName": issuer,
        "ListCost": quantity * line.list_unit_price * per,
        "ListUnitPrice": line.list_unit_price * per,
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "ProviderName": issuer,
        "PublisherName": issuer,
        "RegionId": region,
        "RegionName": region,
        "ResourceId": line.resource_id or line.writer or line.resource,
        "ResourceName": line.resource_id or line.resource,
        "ResourceType": line.resource_type or "task",
        "ServiceCategory": "Storage" if stored else "Compute",
        "ServiceName": "Stored artefacts" if stored else "Nodes",
        "SkuId": line.resource,
        "SkuPriceId": f"{line.resource} standard",
        "SubAccountId": line.component,
        "SubAccountName": line.component,
        "Tags": json.dumps(
            {"run": line.run_id, "component": line.component, "charge_class": line.charge_class}
        ),
        "x_Component": line.component,
        "x_ChargeClass": line.charge_class,
        "x_Basis": line.basis,
        "x_RequestedQuantity": None if line.requested is None else line.requested * share / per,
        "x_UsedQuantity": None if line.used is None else line.used * share / per,
    }
    return row | {name: row[column] for name, column in _ALSO.items()}


def _by_month(line: LedgerLine) -> Iterator[tuple[datetime.datetime, datetime.datetime, float]]:
    begin, stop = line_period(line)
    whole = (stop - begin).total_seconds()
    while True:
        end = min(stop, _next_month(begin))
        yield begin, end, (end - begin).total_seconds() / whole if whole else 1.0
        if end >= stop:
            return
        begin = end


def _next_month(moment: datetime.datetime) -> datetime.datetime:
    first = moment.astimezone(datetime.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + datetime.timedelta(days=32)).replace(day=1)


def _stamp(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")


def _csv(rows: Iterator[dict[str, Any]]) -> tuple[bytes, int]:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    count = 0
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
        count += 1
    return text.getvalue().encode(), count


def _cell(value: Any) -> Any:
    """A number without its exponent, which not every reader of CSV takes; nothing for None."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{Decimal(repr(value)):f}"
    return "" if value is None else value


def _parquet(rows: Iterator[dict[str, Any]]) -> tuple[bytes, int]:
    schema = pa.schema([(name, pa.float64() if name in _NUMBERS else pa.string()) for name in COLUMNS])
    sink, count, batch = io.BytesIO(), 0, 50_000
    with pq.ParquetWriter(sink, schema) as writer:
        held: list[dict[str, Any]] = []
        for row in rows:
            held.append(row)
            if len(held) == batch:
                writer.write_table(_table(held, schema))
                count, held = count + batch, []
        writer.write_table(_table(held, schema))
    return sink.getvalue(), count + len(held)


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)
