"""A growing ledger, read piece by piece: dollars by run, component, term and basis, and the last day."""

from __future__ import annotations

from typing import NamedTuple

from equipoise import storage
from equipoise.costs.ledger import CLOSED, check_line, line_term, parse_line
from equipoise.costs.ledger_lines import line_period
from equipoise.errors import InputError, StorageError
from equipoise.exporter.minutes import Minutes
from equipoise.runs import LedgerLine


class CostKey(NamedTuple):
    """Labels of one cost series."""

    run: str
    component: str
    term: str
    """`compute` or `storage`."""
    basis: str
    """The line's charge class: `workload`, `idle` or `overhead`."""


class LedgerTotals:
    """Running sums over `ledger/<writer>/<seq>.jsonl`.

    Objects are put once, whole, and in order, so a refresh asks each writer at work for its next one
    only. Writers that came to their end are not asked again: what a refresh costs depends on how many
    are at work and what they put since, not on how long the run is.

    Args:
        run_location: the run folder, a path or URI.
    """

    def __init__(self, run_location: str) -> None:
        self._folder = f"{run_location.rstrip('/')}/ledger"
        self._next: dict[str, int] = {}
        self._ended: set[str] = set()
        self.usd: dict[CostKey, float] = {}
        self.minutes = Minutes()
        self.run_id = ""
        """Of the lines; a run folder holds those of one run."""
        self.unreadable_lines = 0
        """Lines that are no ledger lines, or whose figures cannot be; left out, as `ledger show` does."""

    def refresh(self) -> None:
        """Add the objects that are new since the last time.

        Raises:
            StorageError: the ledger cannot be listed or read; the sums so far stand.
        """
        try:
            for writer in storage.list_folders(self._folder):
                if writer not in self._ended:
                    self._next.setdefault(writer, 0)
            at_work = set(self._next) - self._ended
            while at_work:
                at_work = self._read_next(sorted(at_work))
        except OSError as error:
            raise StorageError(f"the ledger cannot be read: {error}", where=self._folder) from error

    def _read_next(self, writers: list[str]) -> set[str]:
        """Read the next object of each writer that has one; which those are."""
        wanted = {writer: f"{writer}/{self._next[writer]:06d}.jsonl" for writer in writers}
        closing = {writer: f"{writer}/{CLOSED}" for writer in writers}
        standing = storage.which_exist(self._folder, [*closing.values(), *wanted.values()])
        more = set()
        for writer, name in wanted.items():
            if name in standing:
                content = storage.read_bytes(f"{self._folder}/{name}")
                self._next[writer] += 1
                more.add(writer)
                for text in filter(None, map(bytes.strip, content.splitlines())):
                    self._add(text)
            elif closing[writer] in standing:
                # It was asked for before the last object was: nothing can have come in between.
                self._ended.add(writer)
                del self._next[writer]
        return more

    def _add(self, content: bytes) -> None:
        try:
            line = parse_line(content)
            check_line(line)
        except InputError:
            self.unreadable_lines += 1
            return
        start, stop = line_period(line)
        self.run_id = line.run_id
        self.minutes.add(line, start.timestamp(), stop.timestamp())
        if line.kind == "usage":
            key = _key(line)
            self.usd[key] = self.usd.get(key, 0.0) + line.billed_cost_usd


def _key(line: LedgerLine) -> CostKey:
    return CostKey(line.run_id, line.component, line_term(line), line.charge_class)
