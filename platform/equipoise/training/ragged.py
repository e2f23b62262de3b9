"""Rows of different lengths in one flat array, which may lie on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ragged:
    """`values` of all rows one after the other, `lengths` of each row (at least 1), and what pads them."""

    values: NDArray[Any]
    lengths: NDArray[np.int64]
    pad: int = 0

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each row begins, shape (rows,)."""
        return np.asarray(np.cumsum(self.lengths) - self.lengths, dtype=np.int64)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows, padded to the longest of them: int64 of shape (rows, longest)."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max())
        places = np.minimum(self.starts[rows][:, None] + columns, len(self.values) - 1)
        return np.where(columns < lengths[:, None], self.values[places], self.pad).astype(np.int64)

    def count_not(self, value: int) -> NDArray[np.int64]:
        """How many values of each row are another than this, shape (rows,)."""
        return np.asarray(np.add.reduceat(self.values != value, self.starts, dtype=np.int64), dtype=np.int64)
