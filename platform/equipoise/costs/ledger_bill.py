"""The ledger held against a provider's bill: a FOCUS file, CSV or Parquet."""

from __future__ import annotations

import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from equipoise import storage
from equipoise.costs.ledger_lines import iso_time
from equipoise.costs.ledger_reconcile import DAY_S, HOUR_S, TOLERANCE, parse_moment, reconcile
from equipoise.costs.ledger_table import LedgerTable, read_table
from equipoise.errors import InputError, ReconcileError
from equipoise.runs.folder import RunFolder

_NEEDED = ("BilledCost", "BillingCurrency", "ChargePeriodStart", "ChargePeriodEnd")
_NAMING = ("SkuId", "SkuPriceId", "ResourceType", "ResourceName", "ResourceId", "ChargeDescription")
"""Columns that may name a node type or a storage class; those that begin with `x_` may too."""


@dataclass(frozen=True)
class BillRow:
    """A charge: dollars over a period, in seconds since the epoch, and the words that name its resource."""

    start: float
    stop: float
    usd: float
    words: str


@dataclass(frozen=True)
class BillCheck:
    """One resource in one period: dollars by the bill and by the ledger."""

    resource: str
    period_start: str
    period_end: str
    bill_usd: float
    ledger_usd: float

    @property
    def difference(self) -> float:
        """What is off, as a share of the bill; infinite where the bill has nothing."""
        off = abs(self.bill_usd - self.ledger_usd)
        return off / self.bill_usd if self.bill_usd else math.inf if off else 0.0


@dataclass(frozen=True)
class BillComparison:
    """What `equipoise ledger reconcile --bill` found."""

    checks: list[BillCheck]
    tolerance: float
    unmatched_rows: int
    """Charges for something that the ledger does not meter, such as traffic."""
    unmatched_usd: float

    @property
    def mismatches(self) -> list[BillCheck]:
        """Periods beyond the tolerance, the worst first."""
        beyond = [check for check in self.checks if check.difference > self.tolerance]
        return sorted(beyond, key=lambda check: -abs(check.bill_usd - check.ledger_usd))


def read_bill(location: str, tags: Mapping[str, str] | None = None) -> list[BillRow]:
    """The charges of a FOCUS file, those with all of `tags` only.

    Raises:
        InputError: it cannot be read, lacks a column, or has a value that no bill can have.
    """
    rows = _read_table(location).to_pylist()
    return [
        _bill_row(row, f"{location}: row {number}")
        for number, row in enumerate(rows, start=1)
        if _has_tags(row, tags or {}, f"{location}: row {number}")
    ]


def compare_bill(run: RunFolder, bill: list[BillRow], tolerance: float = TOLERANCE) -> BillComparison:
    """Hold the ledger's dollars against the bill's, by resource and period.

    A period is an hour where no charge is longer than one, a day where none is longer than that, and
    else all that the bill spans. Charges and lines that reach over a period's end are split by time.

    Raises:
        InputError: the bill has no charge.
        StorageError: the ledger cannot be read.
    """
    if not bill:
        raise InputError("the bill has no charge", where="--bill", remedy="are the tags right?")
    longest = max(row.stop - row.start for row in bill)
    period_s = HOUR_S if longest <= HOUR_S else DAY_S
    first, last = min(row.start for row in bill), max(row.stop for row in bill)
    since = math.floor(first / period_s) * period_s
    until = math.ceil(last / period_s) * period_s
    table = read_table(run)
    ledger: dict[tuple[str, float], float] = defaultdict(float)
    for period in reconcile(run, since=since, until=until, period_s=period_s).periods:
        ledger[period.resource, parse_moment(period.period_start)] += period.billed_usd
    for resource, at, usd in _stored(table, period_s):
        if since <= at < until:
            ledger[resource, at] += usd
    names = {resource: _pattern(resource) for resource in table.values["resource"]}
    billed: dict[tuple[str, float], float] = defaultdict(float)
    unmatched = []
    for row in bill:
        named = [resource for resource, pattern in names.items() if pattern.search(row.words)]
        if not named:
            unmatched.append(row.usd)
            continue
        # A whole key, such as aws/c7a.xlarge, says more than the type alone.
        resource = max(named, key=lambda name: (name in row.words, len(name)))
        for at, share in _shares(row.start, row.stop, period_s):
            billed[resource, at] += row.usd * share
    if longest > DAY_S:
        ledger, billed = _whole(ledger, since), _whole(billed, since)
        period_s = int(until - since)
    checks = [
        BillCheck(
            resource=resource,
            period_start=iso_time(at),
            period_end=iso_time(at + period_s),
            bill_usd=billed[resource, at],
            ledger_usd=ledger[resource, at],
        )
        for resource, at in sorted(ledger.keys() | billed.keys())
    ]
    return BillComparison(checks, tolerance, len(unmatched), math.fsum(unmatched))


def require_billed(found: BillComparison, where: str) -> None:
    """Raise unless ledger and bill agree.

    Raises:
        ReconcileError: names the worst period and its resource.
    """
    if not found.mismatches:
        return
    worst = found.mismatches[0]
    more = f" (and {len(found.mismatches) - 1} more)" if len(found.mismatches) > 1 else ""
    raise ReconcileError(
        f"{worst.resource} from {worst.period_start[:16]}Z to {worst.period_end[:16]}Z: the bill says "
        f"${worst.bill_usd:.6g}, the ledger ${worst.ledger_usd:.6g}{more}",
        where=where,
        remedy="the same command with --json lists everything",
    )


def _read_table(location: str) -> pa.Table:
    try:
        content = io.BytesIO(storage.read_bytes(location))
    except OSError as error:
        raise InputError(
            "the bill cannot be read", where=location, value=error.strerror or str(error)
        ) from error
    try:
        if location.endswith(".parquet"):
            table = pq.read_table(content)
        else:
            # Everything as text: an identifier of digits is no number.
            names = content.readline().decode().strip().replace('"', "").split(",")
            content.seek(0)
            options = pa_csv.ConvertOptions(column_types={name: pa.string() for name in names})
            table = pa_csv.read_csv(content, convert_options=options)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InputError(f"is no CSV or Parquet file: {error}", where=location) from error
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise InputError(f"has no column {missing[0]}", where=location, remedy="give a FOCUS 1.0 file")
    return table


def _bill_row(row: dict[str, Any], where: str) -> BillRow:
    if row["BillingCurrency"] != "USD":
        raise InputError("is not in US dollars", where=where, value=row["BillingCurrency"])
    try:
        usd = float(row["BilledCost"])
        start, stop = (_moment(row[name]) for name in ("ChargePeriodStart", "ChargePeriodEnd"))
    except (TypeError, ValueError) as error:
        raise InputError(f"is no charge: {error}", where=where) from error
    if not math.isfinite(usd) or stop < start:
        raise InputError("is no charge: its cost or period cannot be", where=where, value=row["BilledCost"])
    naming = [name for name in row if name in _NAMING or name.startswith("x_")]
    return BillRow(start, stop, usd, " ".join(str(row[name]) for name in naming if row[name]))


def _moment(value: Any) -> float:
    return parse_moment(value if isinstance(value, str) else value.isoformat())


def _has_tags(row: dict[str, Any], tags: Mapping[str, str], where: str) -> bool:
    if not tags:
        return True
    text = row.get("Tags") or "{}"
    try:
        held = dict(json.loads(text) if isinstance(text, str) else text)
    except (TypeError, ValueError) as error:
        raise InputError("has Tags that are no JSON object", where=where, value=text) from error
    return tags.items() <= held.items()


def _pattern(resource: str) -> re.Pattern[str]:
    """Finds a node type or storage class among words, but not as a part of another's name."""
    kind = resource.rpartition("/")[2]
    return re.compile(rf"(?<![\w.-]){re.escape(kind)}(?![\w.-])")


def _stored(table: LedgerTable, period_s: int) -> Iterator[tuple[str, float, float]]:
    """Resource, period and dollars of the storage lines."""
    for line in np.flatnonzero(table.is_text("unit", "GB-months")).tolist():
        resource, usd = table.text("resource", line), float(table.numbers["billed_cost_usd"][line])
        for at, share in _shares(float(table.start[line]) / 1e6, float(table.stop[line]) / 1e6, period_s):
            yield resource, at, usd * share


def _shares(start: float, stop: float, period_s: int) -> Iterator[tuple[float, float]]:
    """The periods that an interval touches, each with its share of it."""
    at = math.floor(start / period_s) * period_s
    if stop <= start:
        yield at, 1.0
        return
    while at < stop:
        share = (min(stop, at + period_s) - max(start, at)) / (stop - start)
        yield at, share
        at += period_s


def _whole(amounts: Mapping[tuple[str, float], float], since: float) -> dict[tuple[str, float], float]:
    """All periods of a resource as one."""
    sums: dict[tuple[str, float], float] = defaultdict(float)
    for (resource, _), usd in amounts.items():
        sums[resource, since] += usd
    return sums
