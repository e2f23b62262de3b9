"""Rows that do not fit in memory: an Arrow file, memory-mapped, read where it is asked."""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from equipoise import storage
from equipoise.data.layout import Layout
from equipoise.errors import DataError

_FILE = "rows.arrow"
_BATCH_ROWS = 1024
_WORDS = pa.list_(pa.large_string())
_IMAGE = pa.struct([("shape", pa.list_(pa.int32())), ("pixels", pa.large_binary())])
_TYPES: dict[Layout, tuple[pa.DataType, pa.DataType]] = {
    "text": (pa.large_string(), pa.string()),
    "words": (_WORDS, pa.list_(pa.string())),
    "prompt": (_WORDS, pa.string()),
    "image": (_IMAGE, pa.string()),
}
"""Of each layout, how an input and its label stand in the file."""


class SpooledColumn(Sequence[Any]):
    """One column of a spooled file, or some of its rows in some order; only what is read is in memory.

    It is pickled as its path, so whoever opens it elsewhere must see the same file.

    Args:
        file: the Arrow file.
        name: `input` or `label`.
        rows: numbers of the file's rows that it has; all of them by default.
        owner: kept alive as long as the column, such as the folder that the file stands in.
    """

    def __init__(
        self, file: Path, name: str, rows: NDArray[np.int64] | None = None, owner: object = None
    ) -> None:
        self.file, self.name = file, name
        self._owner = owner
        self.rows = np.arange(self._column.length(), dtype=np.int64) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> SpooledColumn: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self._value(int(self.rows[index]))

    def __iter__(self) -> Iterator[Any]:
        return map(self._value, self.rows.tolist())

    def __reduce__(self) -> tuple[Any, ...]:
        return SpooledColumn, (self.file, self.name, self.rows)

    def take(self, indices: NDArray[np.int64]) -> SpooledColumn:
        """The rows at these positions, in the order given."""
        return SpooledColumn(self.file, self.name, self.rows[indices], self._owner)

    def moved_to(self, file: Path) -> SpooledColumn:
        """The same rows of the same file at another place."""
        return SpooledColumn(file, self.name, self.rows)

    def _value(self, row: int) -> Any:
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._decode(self._column.chunk(chunk)[row - int(self._starts[chunk])].as_py())

    @cached_property
    def _table(self) -> pa.Table:
        try:
            return pa.ipc.open_file(pa.memory_map(str(self.file))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(
                f"rows on disk cannot be read: {error}",
                where=str(self.file),
                remedy="the run folder must be on a file system that all nodes see",
            ) from error

    @cached_property
    def _column(self) -> pa.ChunkedArray:
        return self._table.column(self.name)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        lengths = [len(chunk) for chunk in self._column.chunks]
        return np.cumsum([0, *lengths])[:-1].astype(np.int64)

    @cached_property
    def _decode(self) -> Callable[[Any], Any]:
        kind = self._column.type
        if kind == pa.string():
            return sys.intern
        if kind == _IMAGE:
            return _image
        if kind == _WORDS and self._table.schema.metadata[b"layout"] == b"prompt":
            return tuple
        return _same


class Spool:
    """Writes rows of one layout to an Arrow file in a temporary folder, which goes with its last column."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = Path(tempfile.mkdtemp(prefix="equipoise-rows-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        types = zip(("input", "label"), _TYPES[layout], strict=True)
        self._schema = pa.schema(list(types), metadata={"layout": layout})
        self._writer = pa.ipc.new_file(str(self._folder / _FILE), self._schema)

    def add(self, inputs: Sequence[Any], labels: Sequence[Any]) -> None:
        """Append rows.

        Raises:
            StorageError: the disk is full.
        """
        for start in range(0, len(inputs), _BATCH_ROWS):
            part = inputs[start : start + _BATCH_ROWS]
            values = [_pixels(value) for value in part] if self._layout == "image" else list(part)
            columns = [values, list(labels[start : start + _BATCH_ROWS])]
            arrays = [pa.array(found, kind.type) for found, kind in zip(columns, self._schema, strict=True)]
            with storage.storage_faults(str(self._folder)):
                self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def close(self) -> tuple[SpooledColumn, SpooledColumn]:
        """No more rows; the inputs and the labels."""
        with storage.storage_faults(str(self._folder)):
            self._writer.close()
        file = self._folder / _FILE
        return SpooledColumn(file, "input", owner=self), SpooledColumn(file, "label", owner=self)


def take_values(values: Sequence[Any], indices: Iterable[int]) -> Sequence[Any]:
    """Some values in the order given; they stay on disk if they are there."""
    if isinstance(values, SpooledColumn):
        return values.take(np.fromiter(indices, np.int64))
    return [values[int(index)] for index in indices]


def settle(values: Sequence[Any], folder: Path) -> Sequence[Any]:
    """Values whose file, if they have one, stands in a folder that other nodes see; copied once a file."""
    if not isinstance(values, SpooledColumn):
        return values
    target = folder / values.file.parent.name
    if not target.is_dir():
        source = values.file

        def fill(staged: Path) -> None:
            shutil.copyfile(source, staged / _FILE)

        storage.write_folder(target, fill)
    return values.moved_to(target / _FILE)


def _same(value: Any) -> Any:
    return value


def _pixels(value: NDArray[np.uint8]) -> dict[str, Any]:
    return {"shape": list(value.shape), "pixels": value.tobytes()}


def _image(value: dict[str, Any]) -> NDArray[np.uint8]:
    return np.frombuffer(value["pixels"], dtype=np.uint8).reshape(value["shape"])
