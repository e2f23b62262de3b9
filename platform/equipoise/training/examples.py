"""Encoded training rows, and the part of them that one worker turns into tensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise import storage
from equipoise.tasks import IGNORED
from equipoise.training.ragged import Ragged
from equipoise.training.teacher_states import TeacherStates

Column = NDArray[Any] | Ragged

FLAT = ".flat"
"""Ends the name of an array on disk that holds the values of all rows one after the other."""


@dataclass(frozen=True)
class Examples:
    """Encoded training rows.

    `arrays` are the model's inputs with the row as first axis, or `Ragged`; `targets` (rows,) or
    (rows, longest) with IGNORED where nothing is asked, or `Ragged`; `ragged`, whether second axes are
    padded to the longest row;
    `teacher_logits` (places, classes) in the order of the targets that are not ignored, or None; where the
    classes are too many, log-likelihoods of those in `teacher_classes` (places, kept) and, in the last
    column, of all the others together. `teacher_states` is what the teacher has inside, or None. `folder`
    is where they lie, if on disk: then they are pickled as its path, and who opens them elsewhere must see
    it.
    """

    arrays: dict[str, Column]
    targets: Column
    lengths: NDArray[np.int64]
    ragged: bool = True
    teacher_logits: NDArray[np.float32] | None = None
    teacher_classes: NDArray[np.int32] | None = None
    teacher_states: TeacherStates | None = None
    folder: str | None = None

    def __reduce__(self) -> Any:
        if self.folder is None:
            return Examples, tuple(getattr(self, one.name) for one in fields(self))
        return open_examples, (self.folder, self.teacher_logits, self.teacher_classes, self.teacher_states)

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Number of places of each row, shape (rows,)."""
        if isinstance(self.targets, Ragged):
            return self.targets.count_not(IGNORED)
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
        columns = [*(self.arrays[name] for name in sorted(self.arrays)), self.targets]
        parts = [column.values if isinstance(column, Ragged) else column for column in columns]
        parts.append(self.lengths)
        parts += [part for part in (self.teacher_logits, self.teacher_classes) if part is not None]
        for part in parts:
            content.update(f"{part.dtype}{part.shape}".encode())
            content.update(np.ascontiguousarray(part).data)
        if self.teacher_states is not None:
            # The folder goes by the content, the rows and the teacher.
            content.update(Path(self.teacher_states.folder).name.encode())
        return content.hexdigest()


@dataclass(frozen=True)
class Batch:
    """Some rows as tensors on a worker's device.

    `inputs` are the model's arguments; `targets` (rows,) or (rows, longest), `teacher_logits`
    (places, classes) or None, `teacher_classes` (places, kept) or None, `teacher_states` as `Guide.loss` is
    told them, or None; `mask` (rows, longest) is true where
    there is no padding, whether the model takes one or not, or None where nothing is padded.
    """

    inputs: dict[str, Any]
    targets: Any
    teacher_logits: Any = None
    teacher_classes: Any = None
    mask: Any = None
    teacher_states: dict[str, Any] | None = None


def take_batch(examples: Examples, rows: NDArray[np.int64], device: Any, dtype: Any = None) -> Batch:
    """The rows' tensors, padding cut to the longest of them; `dtype` is that of floating model inputs."""
    import torch

    longest = int(examples.lengths[rows].max()) if examples.ragged else None

    def send(array: NDArray[Any]) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def feed(array: Column) -> Any:
        found = cut(array)
        return found.to(dtype) if found.is_floating_point() else found

    def cut(array: Column) -> Any:
        if isinstance(array, Ragged):
            return send(array.take(rows))
        found = send(array[rows] if longest is None or array.ndim == 1 else array[rows, :longest])
        return found.long() if found.dtype == torch.int32 else found

    def teach(array: NDArray[Any] | None) -> Any:
        return None if array is None else send(array[examples.places_of(rows)])

    return Batch(
        inputs={name: feed(array) for name, array in examples.arrays.items()},
        targets=cut(examples.targets),
        teacher_logits=teach(examples.teacher_logits),
        teacher_classes=teach(examples.teacher_classes),
        mask=None if longest is None else send(np.arange(longest) < examples.lengths[rows, None]),
        teacher_states=None
        if examples.teacher_states is None
        else examples.teacher_states.take(rows, device),
    )


def open_examples(
    folder: str,
    teacher_logits: NDArray[np.float32] | None = None,
    teacher_classes: NDArray[np.int32] | None = None,
    teacher_states: TeacherStates | None = None,
) -> Examples:
    """Examples that lie on disk; what a batch needs is read when it is taken."""
    root = Path(folder)
    about = storage.read_json(str(root / "examples.json"))
    lengths = np.fromfile(root / "lengths.bin", about["arrays"]["lengths"]["dtype"]).astype(np.int64)
    columns: dict[str, Column] = {}
    for name, kind in about["arrays"].items():
        if name == "lengths":
            continue
        values = np.memmap(root / f"{name}.bin", kind["dtype"], "r").reshape(-1, *kind["shape"])
        plain = name.removesuffix(FLAT)
        pad = IGNORED if plain == "targets" else 0
        columns[plain] = Ragged(values, lengths, pad) if plain != name else values
    targets = columns.pop("targets")
    return Examples(
        columns, targets, lengths, about["ragged"], teacher_logits, teacher_classes, teacher_states, folder
    )
