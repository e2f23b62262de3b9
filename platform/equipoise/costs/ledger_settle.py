"""Closing the books on nodes that are gone: blocks that never ended, and idle time, become lines.

A node is settled once, after its last line. From then on its lines must add up to its node-hours: a
line that gets lost, doubled or stretched later is no longer taken for idle or busy time, but found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from equipoise import storage
from equipoise.costs.idle import Segments, sweep
from equipoise.costs.ledger import OPEN, parse_line
from equipoise.costs.ledger_lines import ChargeClass, iso_time, node_line, usage_line
from equipoise.costs.ledger_table import LedgerTable, read_table
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.costs.price_book import PriceBook
from equipoise.runs.folder import RunFolder
from equipoise.runs.records import LedgerLine

ABANDONED_AFTER_S = 60.0
"""A node that has put no line for so long is taken to be gone: three times what it puts one every."""


def settle(
    run: RunFolder, writer: LedgerWriter, ended: Collection[str] = (), exclusive: str | None = None
) -> None:
    """Bill open blocks and idle time of nodes that are gone and were not settled yet.

    Args:
        run: whose ledger.
        writer: puts the lines.
        ended: names of nodes that put their last line; others count as gone after a minute.
        exclusive: component of which no other node can be up, as the caller holds the folder's lock.

    Raises:
        StorageError: the ledger cannot be read or written.
        ConfigError: a node is not in the price book.
    """
    table = read_table(run)
    gone = [
        node
        for node, stop in _node_stops(table).items()
        if node in ended
        or stop / 1e6 < writer.clock() - ABANDONED_AFTER_S
        or (exclusive is not None and node in _nodes_for(table, exclusive))
    ]
    settled = settled_nodes(table)
    nodes = [node for node in gone if node not in settled]
    if not nodes:
        return
    for line in _last_signs(table, writer, [node for node in nodes if node not in ended]):
        writer.add(line)
    writer.flush()
    for line in _unfinished_blocks(run, read_table(run), nodes):
        writer.add(line)
    writer.flush()
    for line in idle_lines(read_table(run), writer.book, nodes, writer.run_id):
        writer.add(line)
    writer.flush()


def settled_nodes(table: LedgerTable) -> set[str]:
    """Nodes whose idle time is on record."""
    codes = np.unique(table.texts["resource_id"][table.is_text("charge_class", "idle")])
    return {table.values["resource_id"][code] for code in codes}


def open_blocks(run: RunFolder, table: LedgerTable) -> Iterator[LedgerLine]:
    """Starts of blocks that have no line yet, as lines of one second at the block's rate."""
    starts: dict[str, list[int]] = defaultdict(list)
    for name in storage.list_files(run.path("ledger")):
        writer, _, rest = name.partition("/")
        number = rest.removeprefix(f"{OPEN}/").removesuffix(".json")
        if rest == f"{OPEN}/{number}.json" and number.isdecimal():
            starts[writer].append(int(number))
    for writer, numbers in starts.items():
        held = set(table.number[table.is_text("writer", writer)].tolist())
        for place in sorted(set(numbers) - held):
            yield parse_line(storage.read_bytes(run.path("ledger", writer, OPEN, f"{place}.json")))


def idle_lines(
    table: LedgerTable, book: PriceBook, nodes: Collection[str], run_id: str
) -> Iterator[LedgerLine]:
    """What nobody claimed of some nodes, as lines; at least one a node.

    Nodes of one type pool their time: where several are up, what is idle is the first one's first.

    Args:
        nodes: names of nodes that are gone and not settled.
    """
    for resource in table.values["resource"]:
        of_type = table.is_text("resource", resource)
        codes = np.unique(table.texts["resource_id"][of_type & is_node(table)])
        names = sorted({table.values["resource_id"][code] for code in codes} & set(nodes))
        if not names:
            continue
        pool = dollar_segments(table, of_type)
        left = pool.idle
        for name in names:
            own = of_type & is_node(table) & table.is_text("resource_id", name)
            up = dollar_segments(table, own, cuts=pool.start)
            idle = np.zeros_like(left)
            place = np.searchsorted(pool.start, up.start, side="right") - 1
            inside = (place >= 0) & (up.start < pool.stop[place])
            np.add.at(idle, place[inside], up.offered[inside])
            idle = np.minimum(idle, left)
            left = left - idle
            first = int(np.flatnonzero(own)[0])
            component, node_usd_per_hour = table.text("component", first), _usd_per_hour(table, first)
            price = node_usd_per_hour / book.node(resource).vcpus / 3600
            stop = float(table.stop[own].max()) / 1e6
            for begin, end, rate in _stretches(pool, idle) or [(stop, stop, 0.0)]:
                yield usage_line(
                    run_id=run_id,
                    component=component,
                    charge_class="idle",
                    node=resource,
                    book=book,
                    cores=rate / price,
                    start=begin,
                    stop=end,
                    resource_type="node",
                    resource_id=name,
                    usd_per_hour=node_usd_per_hour,
                )


def dollar_segments(
    table: LedgerTable, lines: NDArray[np.bool_], cuts: NDArray[np.int64] | None = None
) -> Segments:
    """Rates in dollars a second: what nodes among these lines offer, and what compute lines claim."""
    chosen = lines & (table.stop > table.start) & (is_node(table) | is_compute(table))
    start, stop = table.start[chosen], table.stop[chosen]
    seconds = (stop - start) / 1e6
    usd = table.numbers["billed_cost_usd"][chosen] / seconds
    node = is_node(table)[chosen]
    quantity, requested = table.numbers["quantity"][chosen], table.numbers["requested"][chosen]
    # A line from before the column `requested` was reserved whole.
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.isnan(requested) | (quantity <= 0), 1.0, np.minimum(requested / quantity, 1.0))
    claimed = np.where(node, 0.0, usd)
    return sweep(start, stop, np.where(node, usd, 0.0), claimed, claimed * share, cuts)


def is_node(table: LedgerTable) -> NDArray[np.bool_]:
    """Lines of a node's own start and stop."""
    return table.is_text("kind", "node")


def is_compute(table: LedgerTable) -> NDArray[np.bool_]:
    """Lines of what ran on nodes, idle time included."""
    return table.is_text("kind", "usage") & table.is_text("unit", "core-seconds")


def _nodes_for(table: LedgerTable, component: str) -> set[str]:
    codes = np.unique(table.texts["resource_id"][is_node(table) & table.is_text("component", component)])
    return {table.values["resource_id"][code] for code in codes}


def _node_stops(table: LedgerTable) -> dict[str, int]:
    stops: dict[str, int] = {}
    for line in np.flatnonzero(is_node(table)).tolist():
        name = table.text("resource_id", line)
        if name:
            stops[name] = max(stops.get(name, 0), int(table.stop[line]))
    return stops


def _last_signs(table: LedgerTable, writer: LedgerWriter, nodes: Collection[str]) -> Iterator[LedgerLine]:
    """Node lines up to the last line that ran on each node, where that ended after the node's own last one.

    A node that was killed put its last line up to 20 seconds before; what ran on it may have put one since.
    """
    compute, node_lines = is_compute(table), is_node(table)
    for node in nodes:
        own = np.flatnonzero(node_lines & table.is_text("resource_id", node))
        last = int(own[np.argmax(table.stop[own])])
        stop, resource = int(table.stop[last]), table.text("resource", last)
        same = table.is_text("resource", resource)
        later = table.start[node_lines & same & (table.start >= stop)]
        limit = min(int(later.min(initial=np.iinfo(np.int64).max)), stop + int(ABANDONED_AFTER_S * 1e6))
        after = compute & same & (table.start < limit) & (table.stop > stop) & (table.stop <= limit)
        seconds = (stop - int(table.start[last])) / 1e6
        if after.any() and seconds > 0:
            yield node_line(
                run_id=writer.run_id,
                component=table.text("component", last),
                node=resource,
                book=writer.book,
                start=stop / 1e6,
                stop=int(table.stop[after].max()) / 1e6,
                count=round(float(table.numbers["quantity"][last]) / seconds),
                detail="until the last line of what ran on it",
                resource_id=node,
                usd_per_hour=_usd_per_hour(table, last),
            )


def _usd_per_hour(table: LedgerTable, line: int) -> float:
    """What was paid an hour for a node, by one of its own lines."""
    return float(table.numbers["effective_unit_price"][line]) * 3600


def _unfinished_blocks(run: RunFolder, table: LedgerTable, nodes: Collection[str]) -> Iterator[LedgerLine]:
    """Lines for blocks whose process was killed: overhead, until their node was gone."""
    on_nodes = is_node(table) & table.is_text("resource_id", *nodes)
    for block in open_blocks(run, table):
        begin = int(np.datetime64(block.period_start.removesuffix("+00:00"), "us").astype(np.int64))
        same = on_nodes & table.is_text("resource", block.resource)
        covering = same & (table.start <= begin) & (begin < table.stop)
        if not covering.any():
            continue
        node = table.text("resource_id", int(np.flatnonzero(covering)[0]))
        seconds = (int(table.stop[same & table.is_text("resource_id", node)].max()) - begin) / 1e6
        quantity = block.quantity * seconds
        overhead: ChargeClass = "overhead"
        yield block.model_copy(
            update={
                "charge_class": overhead,
                "quantity": quantity,
                "requested": quantity,
                "billed_cost_usd": quantity * block.effective_unit_price,
                "period_end": iso_time(begin / 1e6 + seconds),
                "detail": f"{block.detail} (killed)".strip(),
            }
        )


def _stretches(pool: Segments, idle: NDArray[np.float64]) -> list[tuple[float, float, float]]:
    """Start, stop and rate of each stretch of constant idle time; times in seconds."""
    found: list[tuple[int, int, float]] = []
    for start, stop, rate in zip(pool.start.tolist(), pool.stop.tolist(), idle.tolist(), strict=True):
        if rate <= 0:
            continue
        if found and found[-1][1] == start and abs(found[-1][2] - rate) <= 1e-12 * rate:
            found[-1] = (found[-1][0], stop, found[-1][2])
        else:
            found.append((start, stop, rate))
    return [(start / 1e6, stop / 1e6, rate) for start, stop, rate in found]
