"""Lines that are lost, doubled, impossible or billed twice, whatever the hours say."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from equipoise.costs.ledger_lines import iso_time
from equipoise.costs.ledger_settle import is_compute
from equipoise.costs.ledger_table import Fault, LedgerTable


def find_faults(table: LedgerTable, opened: Collection[tuple[str, int | None]]) -> Iterator[Fault]:
    """What is wrong with single lines.

    Args:
        opened: writer and number of the blocks that have begun and not ended; their lines are no loss.
    """
    yield from _identity_faults(table, opened)
    yield from _instant_faults(table)
    yield from _overlap_faults(table)


def _identity_faults(table: LedgerTable, opened: Collection[tuple[str, int | None]]) -> Iterator[Fault]:
    """Lines that are there twice, and numbers that no line has."""
    numbered = np.flatnonzero(table.number >= 0)
    order = numbered[np.lexsort((table.number[numbered], table.texts["writer"][numbered]))]
    writers, numbers = table.texts["writer"][order], table.number[order]
    same_writer = np.append(False, writers[1:] == writers[:-1]) if len(order) else np.zeros(0, bool)
    step = np.append(0, np.diff(numbers)) if len(order) else np.zeros(0, np.int64)
    for place in np.flatnonzero(same_writer & (step == 0)).tolist():
        line = int(order[place])
        yield Fault(_spot(table, line), f"line {numbers[place]} is there twice")
    for place in np.flatnonzero(same_writer & (step > 1)).tolist():
        before = int(order[place - 1])
        yield from _lost(table, before, int(numbers[place - 1]) + 1, int(numbers[place]), opened)
    starts = np.flatnonzero(~same_writer)
    ends = np.append(starts[1:], len(order)) - 1 if len(starts) else starts
    seen: set[str] = set()
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        name = table.text("writer", int(order[first]))
        seen.add(name)
        yield from _lost(table, int(order[first]), 0, int(numbers[first]), opened)
        expected = table.closed.get(name, int(numbers[last]) + 1)
        yield from _lost(table, int(order[last]), int(numbers[last]) + 1, expected, opened)
    for name, count in sorted(table.closed.items()):
        if count and name not in seen:
            yield Fault(f"ledger/{name}", f"all of its {count} lines are lost")


def _lost(
    table: LedgerTable, near: int, first: int, stop: int, opened: Collection[tuple[str, int | None]]
) -> Iterator[Fault]:
    """Numbers from `first` up to `stop` that no line has; blocks that are still open are no loss."""
    name = table.text("writer", near)
    lost = [n for n in range(first, stop) if name in table.closed or (name, n) not in opened]
    if lost:
        noun = f"line {lost[0]} is" if len(lost) == 1 else f"lines {lost[0]} to {lost[-1]} are"
        yield Fault(_spot(table, near), f"{noun} lost; a line beside it is of this period and resource")


def _instant_faults(table: LedgerTable) -> Iterator[Fault]:
    """Work in no time at all: none of it can have run."""
    sudden = is_compute(table) & (table.stop == table.start) & (table.numbers["quantity"] > 0)
    for line in np.flatnonzero(sudden).tolist():
        yield Fault(_spot(table, line), f"{table.numbers['quantity'][line]:g} core-seconds in no time")


def _overlap_faults(table: LedgerTable) -> Iterator[Fault]:
    """One artefact cannot be kept twice at a time."""
    stored = np.flatnonzero(table.is_text("unit", "GB-months"))
    order = stored[np.lexsort((table.start[stored], table.texts["resource_id"][stored]))]
    ids, start, stop = table.texts["resource_id"][order], table.start[order], table.stop[order]
    for place in np.flatnonzero((ids[1:] == ids[:-1]) & (start[1:] < stop[:-1])).tolist():
        line = int(order[place + 1])
        artefact = table.text("resource_id", line)
        yield Fault(_spot(table, line), f"{artefact} is billed twice for the same time")


def _spot(table: LedgerTable, line: int) -> str:
    """A line's writer, resource and period."""
    begin, end = iso_time(table.start[line] / 1e6), iso_time(table.stop[line] / 1e6)
    writer = table.text("writer", line) or "ledger"
    return f"{writer}, {table.text('resource', line)} from {begin} to {end}"
