"""Idle core-seconds, by interval arithmetic over node periods and usage lines.

Time is cut at every start and stop. Within a segment the capacity of the nodes that are up and the
cores that usage lines claim are both constant: what is claimed up to capacity is busy, what is not
claimed is idle, and what is claimed beyond capacity is an excess. Nothing is ever "what is left" of
two totals, so that a doubled, misplaced or stretched line shows as an excess and cannot hide in the
idle time of another hour.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from equipoise.costs.ledger_lines import line_period
from equipoise.costs.price_book import PriceBook
from equipoise.runs.records import LedgerLine

_FUZZ = 1e-9
"""Claimed cores beyond capacity, as a share of it, that are taken for a rounding error."""


@dataclass(frozen=True)
class CoreSeconds:
    """Core-seconds of nodes: `capacity = busy + idle`; `excess` was claimed but cannot have run."""

    capacity: float
    busy: float
    idle: float
    excess: float


def idle_core_seconds(lines: Iterable[LedgerLine], book: PriceBook) -> CoreSeconds:
    """Busy, idle and excess core-seconds of all node types together.

    Usage counts on nodes of its own type only; lines already classed as idle are left out.

    Raises:
        ConfigError: a node is not in the price book.
        InputError: a line's period or quantity is damaged.
    """
    cores: dict[str, list[_Claim]] = defaultdict(list)
    instants = []
    for line in lines:
        start, stop = line_period(line)
        if line.kind == "node":
            amount = line.quantity * book.node(line.resource).vcpus
        elif line.unit == "core-seconds" and line.charge_class != "idle":
            amount = line.quantity
        else:
            continue
        if stop > start:
            rate = amount / (stop - start).total_seconds()
            cores[line.resource].append(_Claim(start, stop, rate, line.kind == "node"))
        elif line.kind == "usage":
            instants.append(amount)  # Work in no time at all: none of it can have run.
    parts = [_sweep(claims) for claims in cores.values()]
    return CoreSeconds(
        capacity=math.fsum(part.capacity for part in parts),
        busy=math.fsum(part.busy for part in parts),
        idle=math.fsum(part.idle for part in parts),
        excess=math.fsum([part.excess for part in parts] + instants),
    )


@dataclass(frozen=True)
class _Claim:
    start: datetime.datetime
    stop: datetime.datetime
    cores: float
    offered: bool


def _sweep(claims: list[_Claim]) -> CoreSeconds:
    """One node type: walk the segments between all starts and stops."""
    opening, closing = defaultdict(list), defaultdict(list)
    for claim in claims:
        opening[claim.start].append(claim)
        closing[claim.stop].append(claim)
    instants = sorted(opening.keys() | closing.keys())
    active: set[int] = set()
    by_id = {id(claim): claim for claim in claims}
    capacity, busy, idle, excess = [], [], [], []
    for begin, end in itertools.pairwise(instants):
        active.difference_update(map(id, closing[begin]))
        active.update(map(id, opening[begin]))
        running = [by_id[key] for key in active]
        offered = math.fsum(claim.cores for claim in running if claim.offered)
        used = math.fsum(claim.cores for claim in running if not claim.offered)
        if offered < used <= offered * (1 + _FUZZ):
            used = offered
        seconds = (end - begin).total_seconds()
        capacity.append(offered * seconds)
        busy.append(min(used, offered) * seconds)
        idle.append(max(offered - used, 0.0) * seconds)
        excess.append(max(used - offered, 0.0) * seconds)
    return CoreSeconds(math.fsum(capacity), math.fsum(busy), math.fsum(idle), math.fsum(excess))
