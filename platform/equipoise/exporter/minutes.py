"""The last day of a ledger by the minute: what nodes cost, what was claimed of them, what was served.

A line counts in each minute that it touches, by the share of its time there. Minutes older than a
day are dropped, so neither memory nor time grow with the age of a run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from equipoise.runs import LedgerLine

DAY_MINUTES = 1440


@dataclass
class Served:
    """Of one model in one minute."""

    usd: float = 0.0
    requests: float = 0.0
    begin: float = math.inf
    """When the first of its replicas was up in this minute, in seconds since the epoch."""
    end: float = -math.inf
    """When the last of them was."""

    @property
    def seconds(self) -> float:
        """For how long it was served."""
        return max(self.end - self.begin, 0.0)


@dataclass
class Minute:
    """Dollars of nodes and of claims on them by node type, and what was served by model."""

    nodes_usd: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    claimed_usd: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    served: dict[str, Served] = field(default_factory=lambda: defaultdict(Served))


class Minutes:
    """Minutes of the last day by their number since the epoch."""

    def __init__(self) -> None:
        self.kept: dict[int, Minute] = defaultdict(Minute)

    def add(self, line: LedgerLine, start: float, stop: float) -> None:
        """Count a line in its minutes.

        Args:
            start: of its period, in seconds since the epoch; `stop` likewise.
        """
        if line.unit not in ("node-seconds", "core-seconds") or line.charge_class == "idle":
            return
        first, last = math.floor(start / 60), math.floor(stop / 60)
        for number in range(first, last + 1):
            begin, end = max(start, number * 60), min(stop, number * 60 + 60)
            share = (end - begin) / (stop - start) if stop > start else 1.0
            if share > 0:
                self._count(self.kept[number], line, share, begin, end)

    def drop_before(self, number: int, take: Callable[[Minute], None]) -> None:
        """Hand over and forget the minutes before a number."""
        for old in [held for held in self.kept if held < number]:
            take(self.kept.pop(old))

    def last(self, count: int, now: float) -> list[Minute]:
        """Those of the last `count` whole minutes in which something was."""
        present = math.floor(now / 60)
        if count >= len(self.kept):
            return [minute for number, minute in self.kept.items() if present - count <= number < present]
        return [self.kept[n] for n in range(present - count, present) if n in self.kept]

    def _count(self, minute: Minute, line: LedgerLine, share: float, begin: float, end: float) -> None:
        usd = line.billed_cost_usd * share
        if line.kind == "node":
            minute.nodes_usd[line.resource] += usd
            return
        minute.claimed_usd[line.resource] += usd
        if line.resource_type == "replica":
            served = minute.served[line.detail]
            served.usd += usd
            served.requests += line.requests * share
            served.begin, served.end = min(served.begin, begin), max(served.end, end)


def idle_share(minutes: list[Minute]) -> float | None:
    """Share of the nodes' dollars that nobody claimed, minute by minute; None where no node was up."""
    nodes = math.fsum(usd for minute in minutes for usd in minute.nodes_usd.values())
    idle = math.fsum(
        max(usd - minute.claimed_usd.get(resource, 0.0), 0.0)
        for minute in minutes
        for resource, usd in minute.nodes_usd.items()
    )
    return idle / nodes if nodes else None
