"""What nodes offered and what lines claim of it, by interval arithmetic over their starts and stops.

Time is cut at every start and stop. Within a segment the capacity of the nodes that are up and the
rates that lines claim are both constant: what is claimed up to capacity is busy, what is not claimed
is idle, and what is claimed beyond capacity is an excess. Nothing is ever "what is left" of two
totals, so that a doubled, misplaced or stretched line shows as an excess and cannot hide in the
idle time of another hour.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.costs.ledger_lines import line_period
from equipoise.costs.price_book import PriceBook
from equipoise.runs.records import LedgerLine

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

_FUZZ = 1e-9
"""Difference of claims and capacity, as a share of capacity, that is taken for a rounding error."""


@dataclass(frozen=True)
class CoreSeconds:
    """Core-seconds of nodes: `capacity = busy + idle`; `excess` was claimed but cannot have run."""

    capacity: float
    busy: float
    idle: float
    excess: float


@dataclass(frozen=True)
class Segments:
    """Stretches of time in which nothing starts or stops, in order and without overlap.

    Times are microseconds since the epoch. `offered` is the rate that nodes offer, `used` the one that
    lines claim, `reserved` the part of it that was reserved, all in the unit that was handed in.
    """

    start: Times
    stop: Times
    offered: Floats
    used: Floats
    reserved: Floats

    @property
    def seconds(self) -> Floats:
        """Length of each segment."""
        return (self.stop - self.start) / 1e6

    @property
    def busy(self) -> Floats:
        """Claimed and offered."""
        return np.minimum(self.used, self.offered)

    @property
    def idle(self) -> Floats:
        """Offered and claimed by nobody."""
        return np.maximum(self.offered - self.used, 0.0)

    @property
    def excess(self) -> Floats:
        """Reserved, though no node offered it."""
        return np.maximum(self.reserved - self.offered, 0.0)

    @property
    def shared(self) -> Floats:
        """Used beyond what was reserved, out of what others had reserved and left unused."""
        return np.maximum(self.used - np.maximum(self.reserved, self.offered), 0.0)


def sweep(
    start: Times, stop: Times, offered: Floats, used: Floats, reserved: Floats, cuts: Times | None = None
) -> Segments:
    """Cut time at every start and stop, and add up the rates within each segment.

    Args:
        start: microseconds since the epoch, one an interval; `stop` likewise, later than `start`.
        offered: rate that the interval's node offers; 0 for a claim. `used` and `reserved` likewise.
        cuts: further times at which to cut.
    """
    moments = np.unique(np.concatenate([start, stop] if cuts is None else [start, stop, cuts]))
    if len(moments) < 2:
        nothing = np.zeros(0)
        return Segments(moments[:0], moments[:0], nothing, nothing, nothing)
    begun, ended = np.searchsorted(moments, start), np.searchsorted(moments, stop)

    def rate(column: Floats) -> Floats:
        steps = np.bincount(begun, weights=column, minlength=len(moments))
        steps -= np.bincount(ended, weights=column, minlength=len(moments))
        return np.asarray(np.cumsum(steps)[:-1])

    total, claimed, asked = rate(offered), rate(used), rate(reserved)
    # A sum that went up and down again by fractions ends beside its true value, not on it.
    scale = np.max(np.abs(offered), initial=0.0) + np.max(np.abs(used), initial=0.0)
    for column in (total, claimed, asked):
        column[np.abs(column) < _FUZZ * scale] = 0.0
    near = np.abs(claimed - total) <= _FUZZ * np.maximum(total, scale)
    claimed[near] = total[near]
    near = np.abs(asked - total) <= _FUZZ * np.maximum(total, scale)
    asked[near] = total[near]
    return Segments(moments[:-1], moments[1:], total, claimed, asked)


def idle_core_seconds(lines: Iterable[LedgerLine], book: PriceBook) -> CoreSeconds:
    """Busy, idle and excess core-seconds of all node types together.

    Usage counts on nodes of its own type only; lines already classed as idle are left out.

    Raises:
        ConfigError: a node is not in the price book.
        InputError: a line's period or quantity is damaged.
    """
    claims: dict[str, list[tuple[int, int, float, float]]] = defaultdict(list)
    instants = []
    for line in lines:
        begin, end = line_period(line)
        if line.kind == "node":
            amount = line.quantity * book.node(line.resource).vcpus
        elif line.unit == "core-seconds" and line.charge_class != "idle":
            amount = line.quantity
        else:
            continue
        if end > begin:
            rate = amount / (end - begin).total_seconds()
            moments = round(begin.timestamp() * 1e6), round(end.timestamp() * 1e6)
            offered, used = (rate, 0.0) if line.kind == "node" else (0.0, rate)
            claims[line.resource].append((*moments, offered, used))
        elif line.kind == "usage":
            instants.append(amount)  # Work in no time at all: none of it can have run.
    parts = []
    for found in claims.values():
        start, stop, offers, uses = (np.array(column) for column in zip(*found, strict=True))
        parts.append(sweep(start, stop, offers, uses, uses))

    def total(name: str) -> float:
        return math.fsum(float(np.sum(getattr(part, name) * part.seconds)) for part in parts)

    return CoreSeconds(
        capacity=total("offered"),
        busy=total("busy"),
        idle=total("idle"),
        excess=math.fsum([total("excess"), *instants]),
    )
