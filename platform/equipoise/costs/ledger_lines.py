"""Making ledger lines, and reading the time back out of one."""

from __future__ import annotations

import datetime
import math
from typing import Literal

from equipoise.costs.lifecycle import HOURS_PER_MONTH
from equipoise.costs.price_book import PriceBook, core_second_usd, share_of_node
from equipoise.errors import InputError
from equipoise.runs.records import LedgerLine

ChargeClass = Literal["workload", "idle", "overhead"]
ResourceType = Literal["", "node", "task", "trial", "worker", "replica", "artefact", "cache"]

_BYTES_PER_GB = 1e9


def usage_line(
    *,
    run_id: str,
    component: str,
    charge_class: ChargeClass,
    node: str,
    book: PriceBook,
    cores: float,
    start: float,
    stop: float,
    memory_gib: float = 0.0,
    gpus: float = 0.0,
    used_core_seconds: float | None = None,
    detail: str = "",
    resource_type: ResourceType = "",
    resource_id: str = "",
    requests: int = 0,
    usd_per_hour: float | None = None,
) -> LedgerLine:
    """What ran on a part of a node, billed at max(request, usage) and the node's price per core.

    What is reserved is a share of the node: the largest of its CPU, memory and GPU shares. It is
    written in core-seconds: as many cores as that share of the node has.

    Args:
        component: training, search, evaluation, serving or pipeline.
        node: node type of the price book.
        cores: cores reserved from `start` to `stop`; the mean over the period where it varied.
        start: seconds since the epoch; `stop` likewise. A clock set back counts as no time.
        memory_gib: memory reserved; `gpus` likewise.
        used_core_seconds: CPU time that was measured; None where it was not.
        resource_type: what ran; `resource_id` names it.
        requests: requests answered in the period, of a replica.
        usd_per_hour: what is paid for the node, such as its spot price; None is its list price.

    Raises:
        ConfigError: the book has no such node.
    """
    listed = core_second_usd(book, node)
    begin, end, seconds = _period(start, stop)
    entry = book.node(node)
    price = listed if usd_per_hour is None else usd_per_hour / entry.vcpus / 3600
    requested = share_of_node(entry, cores, memory_gib, gpus) * entry.vcpus * seconds
    quantity = max(requested, used_core_seconds or 0.0)
    return LedgerLine(
        run_id=run_id,
        kind="usage",
        component=component,
        charge_class=charge_class,
        resource=node,
        quantity=quantity,
        unit="core-seconds",
        list_unit_price=listed,
        effective_unit_price=price,
        billed_cost_usd=quantity * price,
        period_start=begin,
        period_end=end,
        detail=detail,
        resource_type=resource_type,
        resource_id=resource_id,
        requested=requested,
        used=used_core_seconds,
        basis="usage" if quantity > requested else "request",
        requests=requests,
    )


def node_line(
    *,
    run_id: str,
    component: str,
    node: str,
    book: PriceBook,
    start: float,
    stop: float,
    count: int = 1,
    detail: str = "",
    resource_id: str = "",
    usd_per_hour: float | None = None,
) -> LedgerLine:
    """What a node was up for, from its own start and stop; apart from the lines of what ran on it.

    Args:
        component: whom the node was started for.
        node: node type of the price book.
        start: seconds since the epoch; `stop` likewise.
        count: nodes of this type with the same start and stop.
        resource_id: which node.
        usd_per_hour: what is paid for the node, such as its spot price; None is its list price.

    Raises:
        ConfigError: the book has no such node.
    """
    listed = book.node(node).usd_per_hour
    price = (listed if usd_per_hour is None else usd_per_hour) / 3600
    begin, end, seconds = _period(start, stop)
    return LedgerLine(
        run_id=run_id,
        kind="node",
        component=component,
        charge_class="workload",
        resource=node,
        quantity=seconds * count,
        unit="node-seconds",
        list_unit_price=listed / 3600,
        effective_unit_price=price,
        billed_cost_usd=seconds * count * price,
        period_start=begin,
        period_end=end,
        detail=detail,
        resource_type="node",
        resource_id=resource_id,
    )


def storage_line(
    *,
    run_id: str,
    book: PriceBook,
    stored_bytes: int,
    start: float,
    stop: float,
    resource_id: str,
    resource_type: ResourceType = "artefact",
) -> LedgerLine:
    """Bytes that were kept from `start` to `stop`, at the price of the book's storage class.

    Args:
        stored_bytes: size of the artefact over the period.
        start: seconds since the epoch; `stop` likewise.
        resource_id: the artefact's path in the run folder.
        resource_type: `artefact`, or `cache` for what can be computed again.
    """
    price = book.storage_usd_per_gb_month
    begin, end, seconds = _period(start, stop)
    quantity = stored_bytes / _BYTES_PER_GB * seconds / 3600 / HOURS_PER_MONTH
    return LedgerLine(
        run_id=run_id,
        kind="usage",
        component="storage",
        charge_class="workload",
        resource=book.storage_class,
        quantity=quantity,
        unit="GB-months",
        list_unit_price=price,
        effective_unit_price=price,
        billed_cost_usd=quantity * price,
        period_start=begin,
        period_end=end,
        resource_type=resource_type,
        resource_id=resource_id,
        requested=quantity,
        used=quantity,
    )


def line_period(line: LedgerLine) -> tuple[datetime.datetime, datetime.datetime]:
    """Start and stop of a line.

    Raises:
        InputError: a timestamp is not ISO 8601 with an offset, the line ends before it starts, or
            its quantity is not a finite number of at least 0.
    """
    try:
        start, stop = (datetime.datetime.fromisoformat(text) for text in (line.period_start, line.period_end))
    except ValueError as error:
        raise InputError(f"not an ISO 8601 time: {error}", value=line.period_start) from error
    if start.tzinfo is None or stop.tzinfo is None:
        raise InputError("ledger time has no offset", value=line.period_start, remedy="write it in UTC")
    if stop < start:
        raise InputError("ledger line ends before it starts", value=line.period_end)
    if not (math.isfinite(line.quantity) and line.quantity >= 0):
        raise InputError("ledger quantity is not a finite number of at least 0", value=line.quantity)
    return start, stop


def iso_time(seconds: float) -> str:
    """Seconds since the epoch as the ledger writes them: ISO 8601 in UTC, to the microsecond."""
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return moment.isoformat(timespec="microseconds")


def _period(start: float, stop: float) -> tuple[str, str, float]:
    """ISO stamps in UTC, and the seconds between them as a reader will compute them."""
    begin = datetime.datetime.fromtimestamp(start, tz=datetime.UTC)
    end = max(begin, datetime.datetime.fromtimestamp(stop, tz=datetime.UTC))
    return (
        begin.isoformat(timespec="microseconds"),
        end.isoformat(timespec="microseconds"),
        (end - begin).total_seconds(),
    )
