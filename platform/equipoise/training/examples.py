"""Encoded training rows, and the part of them that one worker turns into tensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.tasks import IGNORED


@dataclass(frozen=True)
class Examples:
    """Encoded training rows.

    `arrays` are the model's inputs with the row as first axis; `targets` (rows,) or (rows, longest)
    with IGNORED where nothing is asked; `ragged`, whether second axes are padded to the longest row;
    `teacher_logits` (places, classes) in the order of the targets that are not ignored, or None; where the
    classes are too many, log-likelihoods of those in `teacher_classes` (places, kept) and, in the last
    column, of all the others together.
    """

    arrays: dict[str, NDArray[Any]]
    targets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    ragged: bool = True
    teacher_logits: NDArray[np.float32] | None = None
    teacher_classes: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Number of places of each row, shape (rows,)."""
        return np.asarray((self.targets != IGNORED).reshape(len(self), -1).sum(axis=1), dtype=np.int64)

    @cached_property
    def first_place(self) -> NDArray[np.int64]:
        """Number of places before each row, shape (rows,)."""
        return np.cumsum(self.places) - self.places

    def places_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the places of some rows, in their order."""
        starts, counts = self.first_place[rows], self.places[rows]
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.asarray(np.repeat(starts, counts) + offsets, dtype=np.int64)

    def digest(self) -> str:
        """Hash of everything that a training sees of its rows."""
        content = hashlib.sha256()
        parts = [*(self.arrays[name] for name in sorted(self.arrays)), self.targets, self.lengths]
        parts += [part for part in (self.teacher_logits, self.teacher_classes) if part is not None]
        for part in parts:
            content.update(f"{part.dtype}{part.shape}".encode())
            content.update(np.ascontiguousarray(part).data)
        return content.hexdigest()


@dataclass(frozen=True)
class Batch:
    """Some rows as tensors on a worker's device.

    `inputs` are the model's arguments; `targets` (rows,) or (rows, longest), `teacher_logits`
    (places, classes) or None, `teacher_classes` (places, kept) or None.
    """

    inputs: dict[str, Any]
    targets: Any
    teacher_logits: Any = None
    teacher_classes: Any = None


def take_batch(examples: Examples, rows: NDArray[np.int64], device: Any, dtype: Any = None) -> Batch:
    """The rows' tensors, padding cut to the longest of them; `dtype` is that of floating model inputs."""
    import torch

    longest = int(examples.lengths[rows].max()) if examples.ragged else None

    def send(array: NDArray[Any]) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def feed(array: NDArray[Any]) -> Any:
        found = cut(array)
        return found.to(dtype) if found.is_floating_point() else found

    def cut(array: NDArray[Any]) -> Any:
        return send(array[rows] if longest is None or array.ndim == 1 else array[rows, :longest])

    def teach(array: NDArray[Any] | None) -> Any:
        return None if array is None else send(array[examples.places_of(rows)])

    return Batch(
        inputs={name: feed(array) for name, array in examples.arrays.items()},
        targets=cut(examples.targets),
        teacher_logits=teach(examples.teacher_logits),
        teacher_classes=teach(examples.teacher_classes),
    )
