"""Waiting rows by length: which of them make the next batch, as measured and as served.

An encoder's time grows with rows x longest row, padding included. So a batch starts from the row
that has waited longest and takes rows of about its length, while the padded tokens stay within the
budget; the oldest row always goes first, so none starves.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from equipoise.tasks.pieces import LENGTH_STEP

Row = TypeVar("Row")

BUCKET_TOKENS = LENGTH_STEP
"""Rows whose lengths differ by less are padded to each other freely: they are padded as far in any case."""
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of rows that an engine may round a batch up to; what the tokens allow is rounded down to one."""
LIKE_LENGTH = 0.75
"""A batch takes rows down to this share of its longest row; below it, padding costs more than a
batch of their own does."""


@dataclass(slots=True)
class LengthBuckets(Generic[Row]):
    """Waiting rows by length, each bucket in order of arrival."""

    _by_length: dict[int, deque[tuple[float, Row]]] = field(default_factory=dict)

    def add(self, row: Row, tokens: int, arrived: float) -> None:
        """Put a row in the queue; `arrived` never falls from one call to the next."""
        bucket = -(-tokens // BUCKET_TOKENS)
        if bucket not in self._by_length:
            self._by_length[bucket] = deque()
        self._by_length[bucket].append((arrived, row))

    def take(self, max_rows: int, max_tokens: int) -> list[Row]:
        """The next batch: the oldest row and those of like length; empty where nothing waits."""
        if not self._by_length:
            return []
        oldest = min(self._by_length, key=lambda length: self._by_length[length][0][0])
        taken: list[Row] = []
        for length in self._like(oldest):
            longest = max(length, oldest) * BUCKET_TOKENS
            room = min(max_rows, _rounded_down(max_tokens // longest)) - len(taken)
            rows = self._by_length[length]
            taken.extend(rows.popleft()[1] for _ in range(min(room, len(rows))))
            if not rows:
                del self._by_length[length]
        return taken

    def _like(self, oldest: int) -> list[int]:
        """The oldest row's bucket, then the shorter ones, then the longer ones, nearest first."""
        shorter = [n for n in self._by_length if LIKE_LENGTH * oldest <= n < oldest]
        longer = [n for n in self._by_length if oldest < n and LIKE_LENGTH * n <= oldest]
        return [oldest, *sorted(shorter, reverse=True), *sorted(longer)]


def _rounded_down(rows: int) -> int:
    """The largest of ROWS that is no more, and 1 at least."""
    return max((number for number in ROWS if number <= rows), default=1)
