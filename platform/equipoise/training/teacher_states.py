"""What a teacher has inside at every training row, as it lies on disk, and the part that a batch needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORED = {"fp32": "<f4", "fp16": "<f2", "bf16": "<i2"}
"""NumPy's type of each precision; it has no bf16, whose bits stand as whole numbers."""


@dataclass(frozen=True)
class TeacherStates:
    """Files of a folder that every training worker sees, `NAME.npy` of each of `names`.

    Where `lengths` (rows,) are given, a file holds all positions that are not padding, row after row,
    (positions, width); otherwise whatever shape a row has, (rows, ...).
    """

    folder: str
    names: tuple[str, ...]
    precision: str
    lengths: NDArray[np.int64] | None

    def __reduce__(self) -> Any:
        # Without the mapped files, which would be read whole.
        return TeacherStates, (self.folder, self.names, self.precision, self.lengths)

    def take(self, rows: NDArray[np.int64], device: Any) -> dict[str, Any]:
        """Some rows' tensors by name, padded to the longest of them with zeros."""
        import torch

        found = {}
        for name, values in self._files.items():
            if self.lengths is None:
                batch = np.ascontiguousarray(values[rows])
            else:
                batch = _padded(values, self._starts[rows], self.lengths[rows])
            tensor = torch.from_numpy(batch)
            found[name] = (tensor.view(torch.bfloat16) if self.precision == "bf16" else tensor).to(device)
        return found

    @cached_property
    def _files(self) -> dict[str, NDArray[Any]]:
        return {name: np.load(states_file(self.folder, name), mmap_mode="r") for name in self.names}

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Where each row begins."""
        lengths = np.zeros(0, np.int64) if self.lengths is None else self.lengths
        return np.asarray(np.cumsum(lengths) - lengths, dtype=np.int64)


def _padded(values: NDArray[Any], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[Any]:
    padded = np.zeros((len(lengths), int(lengths.max()), *values.shape[1:]), values.dtype)
    for place, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        padded[place, :length] = values[start : start + length]
    return padded


def states_file(folder: str | Path, name: str) -> Path:
    """Where what goes by a name stands."""
    return Path(folder) / f"{name}.npy"
