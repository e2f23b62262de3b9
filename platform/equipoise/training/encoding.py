"""Rows to examples: encoded once, kept on disk by the hash of their content, and read from there."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise import storage
from equipoise.data.layout import label_names, row_key
from equipoise.data.spool import SpooledColumn
from equipoise.tasks import Answers, Task
from equipoise.training.examples import FLAT, Examples, open_examples

_CHUNK_ROWS = 1024
_DENSE_CHUNK_ROWS = 64
_TARGETS, _LENGTHS = "targets", "lengths"
Chunk = dict[str, NDArray[Any]]


def encode_examples(
    task: Task,
    inputs: Sequence[Any],
    labels: Sequence[Any],
    teacher: Answers | None = None,
    cache: Path | None = None,
) -> Examples:
    """Encode rows; label names become their numbers in the task.

    Args:
        teacher: the teacher's answers at the places of these rows, for a student.
        cache: folder for what was encoded, by the hash of rows, labels and preprocessor; the examples are
            then read from there as a training goes, and the next call with the same rows encodes nothing.
            Every training worker must see it. Rows that stand on disk are encoded by Ray Data. Without a
            folder all is in memory.
    """
    logits = None if teacher is None else teacher.logits
    classes = None if teacher is None else teacher.classes
    if cache is None:
        arrays = task.encode(inputs)
        return Examples(
            arrays={name: arrays[name] for name in task.inputs},
            targets=task.targets(arrays, labels),
            lengths=task.lengths(inputs),
            ragged=task.ragged,
            teacher_logits=logits,
            teacher_classes=classes,
        )
    folder = cache / _content_hash(task, inputs, labels)
    if not folder.is_dir():
        chunks = _stream if isinstance(inputs, SpooledColumn) else _chunks
        storage.write_folder(folder, lambda target: _write(target, task, chunks(task, inputs, labels)))
    return open_examples(str(folder), logits, classes)


def _content_hash(task: Task, inputs: Sequence[Any], labels: Sequence[Any]) -> str:
    content = hashlib.sha256(json.dumps(task.describe(), sort_keys=True).encode())
    with tempfile.TemporaryDirectory() as scratch:
        task.save(Path(scratch))
        for file in sorted(Path(scratch).iterdir()):
            content.update(storage.sha256_file(file).encode())
    for value, label in zip(inputs, labels, strict=True):
        content.update(json.dumps((row_key(value), list(label_names(label)))).encode())
    return content.hexdigest()[:20]


def _encode(task: Task, inputs: Sequence[Any], labels: Sequence[Any]) -> Chunk:
    """Some rows' arrays by name; of padded ones the values without the padding. int64 becomes int32."""
    arrays, lengths = task.encode(inputs), task.lengths(inputs)
    found = {name: arrays[name] for name in task.inputs} | {_TARGETS: task.targets(arrays, labels)}
    chunk: Chunk = {_LENGTHS: lengths}
    for name, array in found.items():
        values = array.astype(np.int32) if array.dtype == np.int64 else array
        if task.ragged and array.ndim > 1:
            chunk[name + FLAT] = values[np.arange(array.shape[1]) < lengths[:, None]]
        else:
            chunk[name] = values
    return chunk


def _rows_of_chunk(task: Task) -> int:
    return _CHUNK_ROWS if task.ragged else _DENSE_CHUNK_ROWS


def _chunks(task: Task, inputs: Sequence[Any], labels: Sequence[Any]) -> Iterator[Chunk]:
    size = _rows_of_chunk(task)
    for start in range(0, len(inputs), size):
        yield _encode(task, inputs[start : start + size], labels[start : start + size])


class _EncodeRows:
    """A block of row numbers to one row whose cells are the bytes of each array."""

    def __init__(self, task: Task, inputs: Sequence[Any], labels: Sequence[Any]) -> None:
        self.task, self.inputs, self.labels = task, inputs, labels

    def __call__(self, block: dict[str, NDArray[Any]]) -> dict[str, list[bytes]]:
        part = slice(int(block["id"][0]), int(block["id"][-1]) + 1)
        encoded = _encode(self.task, list(self.inputs[part]), list(self.labels[part]))
        return {name: [_pack(array)] for name, array in encoded.items()}


def _stream(task: Task, inputs: Sequence[Any], labels: Sequence[Any]) -> Iterator[Chunk]:
    """Through Ray Data: as many chunks at once as there are cores, in the order of the rows."""
    import ray.data

    from equipoise.observability import progress
    from equipoise.observability.logging import quiet_libraries

    quiet_libraries()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    blocks = -(-len(inputs) // _rows_of_chunk(task))
    encoded = ray.data.range(len(inputs), override_num_blocks=blocks).map_batches(
        _EncodeRows(task, inputs, labels), batch_size=None, batch_format="numpy", num_cpus=1
    )
    done = 0
    for row in encoded.iter_rows():
        chunk = {name: _unpack(cell) for name, cell in row.items()}
        yield chunk
        done += len(chunk[_LENGTHS])
        progress.tell("encoding", done, len(inputs))


def _pack(array: NDArray[Any]) -> bytes:
    head = json.dumps([array.dtype.str, array.shape]).encode()
    return len(head).to_bytes(4, "little") + head + np.ascontiguousarray(array).tobytes()


def _unpack(cell: bytes) -> NDArray[Any]:
    size = int.from_bytes(cell[:4], "little")
    kind, shape = json.loads(cell[4 : 4 + size])
    return np.frombuffer(cell, dtype=kind, offset=4 + size).reshape(shape)


def _write(folder: Path, task: Task, chunks: Iterator[Chunk]) -> None:
    """Each array as the bytes of its values, and in `examples.json` what they are."""
    kinds: dict[str, dict[str, Any]] = {}
    for chunk in chunks:
        for name, array in chunk.items():
            kinds[name] = {"dtype": array.dtype.str, "shape": array.shape[1:]}
            with (folder / f"{name}.bin").open("ab") as file:
                file.write(np.ascontiguousarray(array).data)
    storage.put_json(str(folder / "examples.json"), {"ragged": task.ragged, "arrays": kinds})
