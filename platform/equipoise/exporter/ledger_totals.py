"""Dollars by run, component, term and basis, added up from a run folder's ledger."""

from __future__ import annotations

import math
from typing import NamedTuple

from pydantic import ValidationError

from equipoise import storage
from equipoise.errors import StorageError
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

    A ledger object is put once and whole, so each is read once: a refresh costs a listing and the
    objects that are new.

    Args:
        run_location: the run folder, a path or URI.
    """

    def __init__(self, run_location: str) -> None:
        self._folder = f"{run_location.rstrip('/')}/ledger"
        self._read: set[str] = set()
        self.usd: dict[CostKey, float] = {}
        self.unreadable_lines = 0
        """Lines that are no ledger lines, or whose cost is negative or not finite; left out."""

    def refresh(self) -> None:
        """Add the objects that are new since the last time.

        Raises:
            StorageError: the ledger cannot be listed or read; the sums so far stand.
        """
        try:
            for name in storage.list_files(self._folder):
                if name.endswith(".jsonl") and name not in self._read:
                    content = storage.read_bytes(f"{self._folder}/{name}")
                    self._read.add(name)
                    for line in filter(None, map(bytes.strip, content.splitlines())):
                        self._add(line)
        except OSError as error:
            raise StorageError(f"the ledger cannot be read: {error}", where=self._folder) from error

    def _add(self, content: bytes) -> None:
        try:
            line = LedgerLine.model_validate_json(content)
        except ValidationError:
            self.unreadable_lines += 1
            return
        if not (math.isfinite(line.billed_cost_usd) and line.billed_cost_usd >= 0):
            self.unreadable_lines += 1
        elif line.kind == "usage":
            term = "storage" if line.unit == "GB-months" else "compute"
            key = CostKey(line.run_id, line.component, term, line.charge_class)
            self.usd[key] = self.usd.get(key, 0.0) + line.billed_cost_usd
