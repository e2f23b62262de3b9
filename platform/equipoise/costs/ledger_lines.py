"""Making ledger lines, and reading the time and the cores back out of one."""

from __future__ import annotations

import datetime
import math
from typing import Literal

from equipoise.costs.price_book import PriceBook, core_second_usd
from equipoise.errors import InputError
from equipoise.runs.records import LedgerLine

ChargeClass = Literal["workload", "idle", "overhead"]


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
    detail: str = "",
) -> LedgerLine:
    """Core-seconds that ran on a node, billed at its price per core.

    Args:
        component: training, search, evaluation, serving or pipeline.
        node: node type of the price book.
        cores: cores in use from `start` to `stop`; the mean over the period where it varied.
        start: seconds since the epoch; `stop` likewise. A clock set back counts as no time.

    Raises:
        ConfigError: the book has no such node.
    """
    price = core_second_usd(book, node)
    begin, end, seconds = _period(start, stop)
    return LedgerLine(
        run_id=run_id,
        kind="usage",
        component=component,
        charge_class=charge_class,
        resource=node,
        quantity=seconds * cores,
        unit="core-seconds",
        list_unit_price=price,
        effective_unit_price=price,
        billed_cost_usd=seconds * cores * price,
        period_start=begin,
        period_end=end,
        detail=detail,
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
) -> LedgerLine:
    """What a node was up for, from its own start and stop; apart from the lines of what ran on it.

    Args:
        component: whom the node was started for.
        node: node type of the price book.
        start: seconds since the epoch; `stop` likewise.
        count: nodes of this type with the same start and stop.

    Raises:
        ConfigError: the book has no such node.
    """
    price = book.node(node).usd_per_hour / 3600
    begin, end, seconds = _period(start, stop)
    return LedgerLine(
        run_id=run_id,
        kind="node",
        component=component,
        charge_class="workload",
        resource=node,
        quantity=seconds * count,
        unit="node-seconds",
        list_unit_price=price,
        effective_unit_price=price,
        billed_cost_usd=seconds * count * price,
        period_start=begin,
        period_end=end,
        detail=detail,
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


def _period(start: float, stop: float) -> tuple[str, str, float]:
    """ISO stamps in UTC, and the seconds between them as a reader will compute them."""
    begin = datetime.datetime.fromtimestamp(start, tz=datetime.UTC)
    end = max(begin, datetime.datetime.fromtimestamp(stop, tz=datetime.UTC))
    return (
        begin.isoformat(timespec="microseconds"),
        end.isoformat(timespec="microseconds"),
        (end - begin).total_seconds(),
    )
