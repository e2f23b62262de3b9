"""The two ends of a prediction in Ray Data: rows in as blocks, answers out as parts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from equipoise import storage
from equipoise.data import Layout
from equipoise.data.streams import BadRow, Columns, read_inputs
from equipoise.pipeline.opened_model import ModelSource
from equipoise.tasks import Task

_BATCH_ROWS = 32
_PART, _PREDICTED = "rows-", "predict-"
"""What the name of a part begins with, and that of the file of rows that the model failed on in it."""
_SCHEMA = pa.schema([("row", pa.int64()), ("where", pa.string()), ("value", pa.large_string())])


class RowsSource(Datasource):
    """A source as a stream of blocks of `part_rows` rows; read by one task, as lines cannot be skipped to.

    Args:
        done: (first, last) rows of parts that are there already; they are read over.
        bad: folder for what cannot be read.
    """

    def __init__(
        self,
        location: str,
        layout: Layout,
        columns: Columns,
        done: list[tuple[int, int]],
        part_rows: int,
        bad: str,
    ) -> None:
        self._arguments = (location, layout, columns, done, part_rows, bad)

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        del parallelism
        arguments = self._arguments
        return [ReadTask(lambda: read_blocks(*arguments), BlockMetadata(None, None, None))]


def read_blocks(
    location: str,
    layout: Layout,
    columns: Columns,
    done: list[tuple[int, int]],
    part_rows: int,
    bad: str,
) -> Iterator[pa.Table]:
    """Blocks of the rows that no part holds yet; rows are numbered by what is usable, from 0.

    What cannot be used is put at every `part_rows` rows of either kind: in files of the same names and
    contents however often the source is read, and whatever parts there are.
    """
    refused: list[BadRow] = []
    files = 0

    def put_refused() -> None:
        nonlocal files
        if refused:
            _put_bad(bad, f"read-{files:06d}.jsonl", refused)
            files += 1

    def refuse(row: BadRow) -> None:
        refused.append(row)
        if len(refused) == part_rows:
            put_refused()

    rows: list[tuple[int, str, str]] = []
    covered = iter(done)
    span = next(covered, None)
    for number, (where, value) in enumerate(read_inputs(location, layout, columns, refuse)):
        if number % part_rows == 0:
            put_refused()
        while span and number > span[1]:
            span = next(covered, None)
        if span and number >= span[0]:
            continue
        rows.append((number, where, pack(value, layout)))
        if len(rows) == part_rows:
            yield _table(rows)
            rows = []
    put_refused()
    if rows:
        yield _table(rows)


def drop_unfinished(parts: str, bad: str) -> None:
    """Remove what a killed try put aside of parts that it did not come to put: their rows come again."""
    whole = set(storage.list_files(parts))
    for name in storage.list_files(bad):
        if name.startswith(_PREDICTED) and f"{_PART}{name.removeprefix(_PREDICTED)}" not in whole:
            storage.remove(f"{bad}/{name}")


class PredictBlock:
    """Opens the model once a process, and turns a block of rows into a part."""

    def __init__(self, source: ModelSource, parts: str, bad: str) -> None:
        self._predictor = source.open(1)
        self._layout = source.layout
        self._parts, self._bad = parts, bad

    def __call__(self, block: pa.Table) -> pa.Table:
        """Put each run of rows that follow one another as `rows-FIRST-LAST.jsonl`.

        Returns:
            The number of rows of each part, and the seconds that it took.
        """
        rows, seconds = [], []
        numbers = block["row"].to_numpy()
        for run in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1):
            started = time.perf_counter()
            self._put_part(block.slice(int(run[0]), len(run)))
            rows.append(len(run))
            seconds.append(time.perf_counter() - started)
        return pa.table({"rows": rows, "busy_s": seconds})

    def _put_part(self, block: pa.Table) -> None:
        numbers = block["row"].to_pylist()
        inputs = [unpack(value, self._layout) for value in block["value"].to_pylist()]
        answers, refused = self._answer(inputs, block["where"].to_pylist())
        lines = [
            json.dumps({"row": number, **answer}, ensure_ascii=False) + "\n"
            for number, answer in zip(numbers, answers, strict=True)
            if answer is not None
        ]
        span = f"{numbers[0]:012d}-{numbers[-1]:012d}.jsonl"
        _put_bad(self._bad, f"{_PREDICTED}{span}", refused)
        storage.put_bytes(f"{self._parts}/{_PART}{span}", "".join(lines).encode())

    def _answer(
        self, inputs: list[Any], places: list[str]
    ) -> tuple[list[dict[str, Any] | None], list[BadRow]]:
        task: Task = self._predictor.task
        answers: list[dict[str, Any] | None] = [None] * len(inputs)
        refused: list[BadRow] = []
        order = np.argsort(task.lengths(inputs), kind="stable").tolist()
        for start in range(0, len(order), _BATCH_ROWS):
            rows = order[start : start + _BATCH_ROWS]
            found: list[dict[str, Any] | None]
            try:
                found = [*self._predictor.predict([inputs[row] for row in rows])]
            except Exception:  # noqa: BLE001 - engines raise types of their own; the row at fault is sought
                found = [self._answer_alone(inputs[row], places[row], refused) for row in rows]
            for row, answer in zip(rows, found, strict=True):
                answers[row] = answer
        return answers, refused

    def _answer_alone(self, value: Any, where: str, refused: list[BadRow]) -> dict[str, Any] | None:
        try:
            return self._predictor.predict([value])[0]
        except Exception as error:  # noqa: BLE001 - as above
            line = (str(error).strip().splitlines() or [""])[0]
            refused.append(BadRow(where, f"{type(error).__name__}: {line}"))
            return None


def pack(value: Any, layout: Layout) -> str:
    """An input as a string that a block holds."""
    if layout == "text":
        return str(value)
    if layout == "image":
        return json.dumps([list(value.shape), value.tobytes().hex()])
    return json.dumps(value)


def unpack(text: str, layout: Layout) -> Any:
    """What `pack` packed."""
    if layout == "text":
        return text
    value = json.loads(text)
    if layout == "image":
        return np.frombuffer(bytes.fromhex(value[1]), dtype=np.uint8).reshape(value[0])
    return tuple(value) if layout == "prompt" else value


def _table(rows: Iterable[tuple[int, str, str]]) -> pa.Table:
    columns = dict(zip(_SCHEMA.names, zip(*rows, strict=True), strict=True))
    return pa.table(columns, _SCHEMA)


def _put_bad(folder: str, name: str, refused: list[BadRow]) -> None:
    """One line a bad row; nothing where there are none."""
    if refused:
        lines = [json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in refused]
        storage.put_bytes(f"{folder}/{name}", "".join(lines).encode())
        refused.clear()
