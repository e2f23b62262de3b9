"""`equipoise predict`: a model over any data source through Ray Data, in parallel, resumable, in order."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from equipoise import ray_runtime, storage
from equipoise.data.streams import BadRow, Columns, count_rows, read_inputs
from equipoise.errors import DataError, EquipoiseError, RetryableError, RunFolderError
from equipoise.observability.logging import quiet_libraries
from equipoise.pipeline.job import DEFAULT_NODE, check_node, open_job
from equipoise.pipeline.opened_model import ModelSource, find_model
from equipoise.pipeline.prediction_blocks import PredictBlock, RowsSource, drop_unfinished
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
    node: str = DEFAULT_NODE,
    tell: Tell = lambda *_: None,
) -> dict[str, Any]:
    """Predict every row of `data`, and return the record that is written as `prediction.json`.

    Under `out`: `parts/rows-FIRST-LAST.jsonl` with one JSON answer a row, put whole as each is done,
    so that the same command goes on where it was stopped; `bad/` with the rows that could not be
    read or predicted and why; `ledger/`. Sorted by name, the parts are in the order of the data.

    Args:
        workers: processes of one core each; by default, and on one machine at most, one a core.
        node: node type of the price book that it is billed as.
        tell: called with what is done, how many rows are done, and of how many (0 where unknown).

    Raises:
        DataError: the data cannot be read at all, or no row of them can be used.
        ConfigError: the price book has no such node.
        ModelError, BundleError: there is no such model, or it is damaged.
        RunFolderError: `out` belongs to another model, or to other data.
        RetryableError: a worker died more often than it is started again.
    """
    check_node(node)
    source = find_model(location)
    source.open(1)
    _check_source(source, data, columns)
    folder = RunFolder(out)
    _claim(folder, source, data, columns)
    drop_unfinished(folder.path(_PARTS), folder.path("bad"))
    done = find_done(folder)
    total = count_rows(data, source.layout) or 0
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        # Of a cluster that is joined the nodes are metered, so it is joined first and left last.
        joined = ray_runtime.is_joined() and stack.enter_context(_ray())
        ledger = stack.enter_context(open_job(folder, "predict", data=data, model=location, node=node))
        if not joined:
            stack.enter_context(_ray())
        processes = _count_processes(workers)
        with ledger.meter("inference", cores=processes, detail=f"predict {source.name}"):
            predicted, busy_s = _run(source, data, columns, folder, done, processes, total, tell)
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
    processes: int,
    total: int,
    tell: Tell,
) -> tuple[int, float]:
    """Predict what no part holds; the rows of it, and the seconds that processes were busy, added up.

    Args:
        total: about how many rows the source has; 0 where that is unknown.
    """
    import ray
    import ray.data

    quiet_libraries()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Ray Data joins small blocks into blocks of 128 MiB, of which one process would get them all.
    context.target_max_block_size = context.target_min_block_size = _BLOCK_BYTES
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
        compute=ray.data.ActorPoolStrategy(size=processes),
        num_cpus=1,
    )
    rows = sum(last - first + 1 for first, last in done)
    predicted, busy_s = 0, 0.0
    tell("rows", rows, total)
    try:
        for row in blocks.iter_rows():
            predicted += row["rows"]
            busy_s += row["busy_s"]
            tell("rows", rows + predicted, max(total, rows + predicted) if total else 0)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, EquipoiseError):
            raise cause from error
        line = (str(error).strip().splitlines() or ["?"])[-1]
        raise RetryableError(
            f"a worker died: {line}", where=data, remedy="run again to continue; finished parts are kept"
        ) from error
    return predicted, busy_s


@contextlib.contextmanager
def _ray() -> Iterator[bool]:
    # Ray warns of Ray Data's own actors at each start, from C++ and past every logger.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray_runtime.start_ray()
    try:
        yield True
    finally:
        ray_runtime.stop_ray()


def _check_source(source: ModelSource, data: str, columns: Columns) -> None:
    """Find what is wrong with a source as a whole here, and not in a worker.

    Raises:
        DataError: it cannot be read, or has rows of which none can be used.
    """
    first: list[BadRow] = []

    def keep_first(row: BadRow) -> None:
        if not first:
            first.append(row)

    usable = next(read_inputs(data, source.layout, columns, keep_first), None)
    if usable is None and first:
        raise DataError(
            f"no row of it can be used; the first, {first[0].where}, {first[0].reason}",
            where=data,
            remedy="is the right column named, and is it the model's kind of data?",
        )


def _count_processes(workers: int | None) -> int:
    """Processes that there will be, each of one core that is reserved for it; Ray must be up.

    A cluster may grow to what is asked for; one machine does not.
    """
    import ray

    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cores = max(1, int(cluster.get("CPU", 1)))
    if workers is None:
        return cores
    return workers if ray_runtime.is_joined() else min(workers, cores)


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
