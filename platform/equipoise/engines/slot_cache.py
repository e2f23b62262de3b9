"""Keys and values of many sequences at once, each in a row of its own.

A sequence starts at the left of its row and is never moved when others come or go: what lies behind its
end is masked out. So a step costs no copy of what is kept, and a sequence's positions are what they would
be if it were alone.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

_STEP = 64
"""Columns are added by so many, so that a longer sequence seldom needs a new table."""


class SlotCache(Cache):  # type: ignore[misc]  # transformers is not type-checked
    """Tables of shape (rows, heads, columns, head size) for each layer; heads may differ between layers.

    Before a forward pass, `aim` says which rows it writes and from which column on.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._tables: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._shape = (0, 0)
        self._first, self._length = 0, 0
        self._starts = torch.zeros(0, dtype=torch.long)

    @property
    def rows(self) -> int:
        """Sequences that there is room for."""
        return self._shape[0]

    @property
    def columns(self) -> int:
        """Tokens of each that there is room for."""
        return self._shape[1]

    def resize(self, rows: int, columns: int) -> None:
        """At least `columns`, and exactly `rows`; what lies in both the old and the new tables stays."""
        columns = -(-columns // _STEP) * _STEP
        keep = min(rows, self.rows), min(columns, self.columns)
        for number, tables in enumerate(self._tables):
            # One layer after another, so that no more than one is there twice.
            self._tables[number] = tuple(_resized(table, rows, columns, keep) for table in tables)  # type: ignore[assignment]
        self._shape = rows, columns

    def move(self, source: int, target: int, length: int) -> None:
        """Put the first `length` columns of one row over another row."""
        for tables in self._tables:
            for table in tables:
                table[target, :, :length] = table[source, :, :length]

    def aim(self, first_row: int, starts: torch.Tensor, longest: int) -> None:
        """Write to the rows from `first_row` on, each from its start on; shape of `starts`: (rows,).

        Args:
            longest: columns that the pass looks at, what it writes included.
        """
        self._first, self._starts, self._length = first_row, starts, longest

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a pass's new keys and values, (rows, heads, new, head size); returns all that it looks at."""
        del args, kwargs
        while len(self._tables) <= layer_idx:
            self._tables.append(self._new_tables(key_states, value_states))
        rows = slice(self._first, self._first + len(key_states))
        found = []
        for table, states in zip(self._tables[layer_idx], (key_states, value_states), strict=True):
            view = table[rows]
            new = states.shape[2]
            if len(view) == 1:
                start = int(self._starts[0])
                view[:, :, start : start + new] = states
            else:
                view[torch.arange(len(view)), :, self._starts] = states[:, :, 0]
            found.append(view[:, :, : self._length])
        return found[0], found[1]

    def _new_tables(self, *states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Zeros: whatever else lay there could be no number, and a masked one of those is none either.
        keys, values = (
            each.new_zeros((self.rows, each.shape[1], self.columns, each.shape[3])) for each in states
        )
        return keys, values


def _resized(table: torch.Tensor, rows: int, columns: int, keep: tuple[int, int]) -> torch.Tensor:
    fresh = table.new_zeros((rows, table.shape[1], columns, table.shape[3]))
    fresh[: keep[0], :, : keep[1]] = table[: keep[0], :, : keep[1]]
    return fresh
