"""`equipoise predict`: a model over any data source through Ray Data, in parallel, resumable, in order."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

from equipoise import hardware, ray_runtime, storage
from equipoise.data.streams import Columns, count_rows, read_inputs
from equipoise.errors import EquipoiseError, RetryableError, RunFolderError
from equipoise.observability.logging import quiet_libraries
from equipoise.pipeline.job import open_job
from equipoise.pipeline.opened_model import ModelSource, find_model
from equipoise.pipeline.prediction_blocks import PredictBlock, RowsSource
from equipoise.runs import RunFolder

RECORD = "prediction.json"
_CLAIM = "job.json"
_PARTS = "parts"
_PART = re.compile(r"rows-(\d{12})-(\d{12})\.jsonl$")
PART_ROWS = 1024
_BLOCK_BYTES = 256 * 1024
Tell = Callable[[str, int, int], None]


def predict(
    location: str,
    data: str,
    out: str,
    columns: Columns,
    *,
    workers: int | None = None,
    tell: Tell = lambda *_: None,
) -> dict[str, Any]:
    """Predict every row of `data`, and return the record that is written as `prediction.json`.

    Under `out`: `parts/rows-FIRST-LAST.jsonl` with one JSON answer a row, put whole as each is done,
    so that the same command goes on where it was stopped; `bad/` with the rows that could not be
    read or predicted and why; `ledger/`. Sorted by name, the parts are in the order of the data.

    Args:
        workers: processes of one core each; by default one a core of the machine or cluster.
        tell: called with what is done, how many rows are done, and of how many (0 where unknown).

    Raises:
        DataError: the data cannot be read at all.
        ModelError, BundleError: there is no such model, or it is damaged.
        RunFolderError: `out` belongs to another model, or to other data.
        RetryableError: a worker died more often than it is started again.
    """
    source = find_model(location)
    source.open(1)
    # What is wrong with the whole source is found here, and not in a worker.
    next(read_inputs(data, source.layout, columns, lambda _: None), None)
    folder = RunFolder(out)
    _claim(folder, source, data, columns)
    done = find_done(folder)
    total = count_rows(data, source.layout) or 0
    started = time.perf_counter()
    with (
        open_job(folder, "predict", data=data, model=location) as ledger,
        ledger.meter(
            "inference", cores=workers or len(hardware.usable_cores()), detail=f"predict {source.name}"
        ),
    ):
        # Ray warns of Ray Data's own actors at each start, from C++ and past every logger.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray_runtime.start_ray()
        try:
            predicted, busy_s = _run(source, data, columns, folder, done, workers, total, tell)
        finally:
            ray_runtime.stop_ray()
    record = {
        "model": source.location,
        "data": data,
        "rows": predicted + sum(last - first + 1 for first, last in done),
        "rows_of_earlier_tries": sum(last - first + 1 for first, last in done),
        "bad_rows": _count_bad(folder),
        "elapsed_s": time.perf_counter() - started,
        "rows_per_s": predicted / (time.perf_counter() - started),
        "busy_s": busy_s,
    }
    folder.put(record, RECORD)
    return record


def join_parts(out: str, file: str) -> None:
    """All parts as one file, in order; put whole."""
    folder = RunFolder(out)
    parts = storage.list_files(folder.path(_PARTS))
    storage.put_bytes(file, b"".join(storage.read_bytes(folder.path(_PARTS, part)) for part in parts))


def find_done(folder: RunFolder) -> list[tuple[int, int]]:
    """(first, last) row of each part that is there."""
    names = storage.list_files(folder.path(_PARTS))
    return sorted((int(m[1]), int(m[2])) for name in names if (m := _PART.search(name)))


def _run(
    source: ModelSource,
    data: str,
    columns: Columns,
    folder: RunFolder,
    done: list[tuple[int, int]],
    workers: int | None,
    total: int,
    tell: Tell,
) -> tuple[int, float]:
    import ray
    import ray.data

    quiet_libraries()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Ray Data joins small blocks into blocks of 128 MiB, of which one process would get them all.
    context.target_max_block_size = context.target_min_block_size = _BLOCK_BYTES
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    actors = workers or max(1, int(cluster.get("CPU", 1)))
    blocks = ray.data.read_datasource(
        RowsSource(data, source.layout, columns, done, PART_ROWS, folder.path("bad")),
        # Without a core of its own: the model's processes hold them all, and reading takes little.
        num_cpus=0,
        override_num_blocks=1,
    ).map_batches(
        PredictBlock,
        fn_constructor_args=(source, folder.path(_PARTS), folder.path("bad")),
        batch_size=PART_ROWS,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    rows = sum(last - first + 1 for first, last in done)
    predicted, busy_s = 0, 0.0
    tell("rows", rows, total)
    try:
        for row in blocks.iter_rows():
            predicted += row["rows"]
            busy_s += row["busy_s"]
            tell("rows", rows + predicted, max(total, rows + predicted))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, EquipoiseError):
            raise cause from error
        line = (str(error).strip().splitlines() or ["?"])[-1]
        raise RetryableError(
            f"a worker died: {line}", where=data, remedy="run again to continue; finished parts are kept"
        ) from error
    return predicted, busy_s


def _claim(folder: RunFolder, source: ModelSource, data: str, columns: Columns) -> None:
    """Bind the folder to one model and one source, so that parts of two never mix."""
    claim = {"model": source.digest, "data": data, "columns": list(columns)}
    if not folder.has(_CLAIM):
        folder.put(claim, _CLAIM)
        return
    held = folder.read(_CLAIM)
    if held != json.loads(json.dumps(claim)):
        differing = next(key for key in claim if held.get(key) != claim[key])
        raise RunFolderError(
            f"holds predictions of another {differing}",
            where=folder.location,
            value=held.get(differing),
            remedy="give another OUT, or remove this one",
        )


def _count_bad(folder: RunFolder) -> int:
    names = storage.list_files(folder.path("bad"))
    return sum(storage.read_bytes(folder.path("bad", name)).count(b"\n") for name in names)
