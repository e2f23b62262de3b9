"""Whether the ledger's lines add up to what the nodes were up for."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.costs.idle import Segments
from equipoise.costs.ledger_faults import find_faults
from equipoise.costs.ledger_lines import iso_time
from equipoise.costs.ledger_settle import (
    ABANDONED_AFTER_S,
    dollar_segments,
    is_compute,
    is_node,
    open_blocks,
    settled_nodes,
)
from equipoise.costs.ledger_table import Fault, LedgerTable, read_table
from equipoise.errors import ReconcileError
from equipoise.runs.folder import RunFolder

TOLERANCE = 0.001
"""Missing and excess node-hours together, as a share of the period's node-hours."""
HOUR_S = 3600
DAY_S = 24 * HOUR_S

_AT_ONCE = 150_000


@dataclass(frozen=True)
class PeriodCheck:
    """One node type in one period: node-hours by the nodes, and by the lines.

    `node_hours + shared_hours = busy_hours + idle_hours + missing_hours - excess_hours` holds up to
    rounding. Shared is what lines used beyond their own reservation out of another's. Unsettled is
    time of nodes whose books are still open: what nobody claims of it is neither idle nor missing.
    """

    resource: str
    period_start: str
    period_end: str
    node_hours: float
    busy_hours: float
    idle_hours: float
    missing_hours: float
    excess_hours: float
    shared_hours: float
    unsettled_hours: float
    node_usd: float
    billed_usd: float
    """Of the lines, and of what is idle on nodes whose books are still open."""

    @property
    def difference(self) -> float:
        """Missing and excess, as a share of the node-hours; infinite where no node was up."""
        off = self.missing_hours + self.excess_hours
        return off / self.node_hours if self.node_hours > 0 else math.inf if off > 0 else 0.0

    def within(self, tolerance: float) -> bool:
        """Whether the difference is tolerated."""
        return bool(self.difference <= tolerance)


@dataclass(frozen=True)
class Reconciliation:
    """What `equipoise ledger reconcile` found."""

    lines: int
    tolerance: float
    periods: list[PeriodCheck]
    faults: list[Fault]
    """Lines that are damaged, lost, doubled, or overlap one of the same artefact."""
    open_blocks: int
    """Blocks that have begun and not ended: the run is at work, or was killed and not run again."""

    @property
    def mismatches(self) -> list[PeriodCheck]:
        """Periods beyond the tolerance, the worst first."""
        beyond = [period for period in self.periods if not period.within(self.tolerance)]
        return sorted(beyond, key=lambda period: -period.difference)

    @property
    def reconciles(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.faults or self.mismatches)


def reconcile(
    run: RunFolder,
    *,
    since: float = -math.inf,
    until: float = math.inf,
    period_s: int = HOUR_S,
    tolerance: float = TOLERANCE,
) -> Reconciliation:
    """Hold the lines of each period and node type against the node-hours of that period.

    Args:
        since: seconds since the epoch; what lies before is left out. `until` likewise.
        period_s: length of a period; periods begin at whole multiples of it, in UTC.
        tolerance: share of the node-hours that may be missing or in excess.

    Raises:
        StorageError: the ledger cannot be read.
    """
    table = read_table(run)
    opened = {(block.writer, block.number) for block in open_blocks(run, table)}
    faults = [
        *table.faults,
        *find_faults(table, opened),
    ]
    window = _microseconds(since), _microseconds(until)
    settled = settled_nodes(table)
    return Reconciliation(
        lines=len(table),
        tolerance=tolerance,
        periods=list(_periods(table, settled, period_s, window)),
        faults=faults,
        open_blocks=len(opened),
    )


def require_reconciled(found: Reconciliation, where: str) -> None:
    """Raise unless everything adds up.

    Raises:
        ReconcileError: names the worst period and its resource, or the first fault.
    """
    if found.reconciles:
        return
    several = len(found.mismatches) + len(found.faults)
    more = f" (and {several - 1} more)" if several > 1 else ""
    remedy = "`equipoise ledger reconcile RUN --json` lists everything"
    if found.mismatches:
        worst = found.mismatches[0]
        raise ReconcileError(f"{describe_mismatch(worst)}{more}", where=where, remedy=remedy)
    fault = found.faults[0]
    raise ReconcileError(f"{fault.what}{more}", where=fault.where, remedy=remedy)


def describe_mismatch(period: PeriodCheck) -> str:
    """One sentence on a period that does not add up."""
    share = "no node was up" if math.isinf(period.difference) else f"{period.difference:.2%} off"
    return (
        f"{period.resource} from {period.period_start[:16]}Z to {period.period_end[:16]}Z: {share}; lines "
        f"claim {period.missing_hours:.4g} node-hours too few and {period.excess_hours:.4g} too many "
        f"of {period.node_hours:.4g}"
    )


def _periods(
    table: LedgerTable, settled: set[str], period_s: int, window: tuple[int, int]
) -> Iterator[PeriodCheck]:
    length = period_s * 1_000_000
    for resource in sorted(table.values["resource"]):
        of_type = table.is_text("resource", resource) & (is_node(table) | is_compute(table))
        if not of_type.any():
            continue
        nodes = of_type & is_node(table)
        idle = of_type & table.is_text("charge_class", "idle") & ~nodes
        own_settled = np.isin(
            table.texts["resource_id"],
            [code for code, name in enumerate(table.values["resource_id"]) if name in settled],
        )
        unsettled = nodes & ~own_settled
        tail = int(table.stop[unsettled].max(initial=np.iinfo(np.int64).min // 2))
        seconds = table.numbers["quantity"][nodes].sum()
        usd_per_second = table.numbers["billed_cost_usd"][nodes].sum() / seconds if seconds else math.nan
        edges = _edges(table.start[of_type], int(table.stop[of_type].max()), length)
        for low, high in itertools.pairwise(edges.tolist()):
            here = of_type & (table.start < high) & (table.stop > low)
            bounds = [moment for moment in window if low < moment < high]
            cuts = np.concatenate([np.arange(low, high + length, length), np.array(bounds, dtype=np.int64)])
            # The same cuts for each part, so that all parts have the same segments.
            every = np.unique(np.concatenate([cuts, table.start[here], table.stop[here]]))
            whole = dollar_segments(table, here, every)
            counted = dollar_segments(table, here & idle, every)
            open_nodes = dollar_segments(table, here & unsettled, every)
            inside = (whole.start >= max(low, window[0])) & (whole.stop <= min(high, window[1]))
            # A node at work has yet to put the line of its last seconds.
            waiting = (whole.start >= tail) & (whole.start < tail + int(ABANDONED_AFTER_S * 1e6))
            inside &= ~(waiting & (whole.offered == 0))
            yield from _by_period(resource, whole, counted, open_nodes, usd_per_second, inside, length)


def _edges(start: NDArray[np.int64], last: int, length: int) -> NDArray[np.int64]:
    """Ends of periods between which there are some 150,000 lines: as many as are taken at once."""
    parts = max(1, round(len(start) / _AT_ONCE))
    inner = np.quantile(start, np.linspace(0, 1, parts + 1)).astype(np.int64)
    return np.unique(np.append(inner // length, -(-last // length))) * length


def _by_period(
    resource: str,
    whole: Segments,
    counted: Segments,
    open_nodes: Segments,
    usd_per_second: float,
    inside: NDArray[np.bool_],
    length: int,
) -> Iterator[PeriodCheck]:
    """Add up the segments of each period. The three share their cuts, and so their segments."""
    seconds = whole.seconds * inside
    unclaimed = np.minimum(whole.idle, open_nodes.offered)
    columns = {
        "node": whole.offered,
        "busy": whole.used - counted.used,
        "idle": counted.used + unclaimed,
        "missing": whole.idle - unclaimed,
        "excess": whole.excess,
        "shared": whole.shared,
        "unsettled": open_nodes.offered,
        "billed": whole.used + unclaimed,
    }
    number = whole.start // length
    base = int(number.min())
    usd = {name: np.bincount(number - base, weights=column * seconds) for name, column in columns.items()}
    occurring = np.bincount(number - base, weights=seconds * ((whole.offered > 0) | (whole.used > 0)))
    # Where no node was ever up there is no price of an hour; the lines' dollars stand for hours then.
    hour = usd_per_second * 3600 if math.isfinite(usd_per_second) else 1.0
    for place in np.flatnonzero(occurring > 0).tolist():
        begin = (base + place) * length / 1e6
        hours = {name: float(total[place]) / hour for name, total in usd.items()}
        yield PeriodCheck(
            resource=resource,
            period_start=iso_time(begin),
            period_end=iso_time(begin + length / 1e6),
            node_hours=hours["node"],
            busy_hours=hours["busy"],
            idle_hours=hours["idle"],
            missing_hours=_rounded(hours["missing"], hours["node"]),
            excess_hours=_rounded(hours["excess"], hours["node"]),
            shared_hours=_rounded(hours["shared"], hours["node"]),
            unsettled_hours=hours["unsettled"],
            node_usd=float(usd["node"][place]),
            billed_usd=float(usd["billed"][place]),
        )


def _microseconds(seconds: float) -> int:
    limit = np.iinfo(np.int64)
    if math.isinf(seconds):
        return int(limit.max if seconds > 0 else limit.min)
    return round(seconds * 1e6)


def _rounded(hours: float, node_hours: float) -> float:
    """Zero where nothing but rounding is left."""
    return hours if hours > 1e-9 * max(node_hours, 1e-12) else 0.0


def parse_moment(text: str) -> float:
    """ISO 8601 as seconds since the epoch; UTC where no offset is given."""
    moment = datetime.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
