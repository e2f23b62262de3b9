"""What a teacher has inside: computed once, in parallel Ray tasks, kept on disk for every student."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise import storage
from equipoise.config import RunConfig
from equipoise.costs import ledger_clock
from equipoise.observability import progress
from equipoise.placement import task_options
from equipoise.tasks import find_task
from equipoise.training.deepspeed_config import resolve_precision
from equipoise.training.examples import Examples, take_batch
from equipoise.training.guidance import Guidance, find_guidance
from equipoise.training.guide import ask_inside, observe
from equipoise.training.teacher_outputs import TaskUse
from equipoise.training.teacher_states import STORED, TeacherStates, states_file
from equipoise.training.workers import trains_on_gpus

_CHUNK_TOKENS = 16384
_CHUNK_ROWS = 64
_BATCH_TOKENS = 4096
"""Padded, of one forward pass."""
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


class _Asked(NamedTuple):
    """What every task of one pass over the rows needs beside the rows."""

    guidance: Guidance
    model_class: str
    precision: str
    on_gpu: bool
    nodes: dict[str, str]


def add_states(
    config: RunConfig,
    teacher: Path,
    layers: Sequence[int],
    examples: Examples,
    cache: Path,
    *,
    teacher_ids: Sequence[int] | None = None,
    on_task: Callable[[TaskUse], None] | None = None,
    nodes: dict[str, str] | None = None,
) -> Examples:
    """The examples, with what the config holds a student to of its teacher's inside.

    What stands in the cache is not computed again: another student on the same rows, or on some of the
    same layers, pays for what is missing alone. As they come where the config asks for none, or where
    they would take more than `distillation.states_gib`; the teacher then runs beside each student.

    Args:
        layers: those that the student starts from.
        cache: a folder that every training worker sees.
        teacher_ids: as `distill_student` takes them.
        on_task: told of each Ray task that ran, on one core each, and on a GPU where trainings do.
        nodes: Ray labels of the nodes to compute on.

    Raises:
        StorageError: the disk is full; what was computed before stays.
    """
    guidance = find_guidance(config.distillation, teacher, layers, teacher_ids)
    if guidance is None or not config.distillation.states_gib:
        return examples
    precision = resolve_precision(config.training)
    folder = cache / _key(examples, guidance, precision)
    names = guidance.names
    missing = [name for name in names if not states_file(folder, name).is_file()]
    if missing:
        model_class, on_gpu = find_task(config.task).model_class, trains_on_gpus(config.training)
        asked = _Asked(guidance, model_class, precision, on_gpu, nodes or {})
        limit = config.distillation.states_gib * 2**30
        if not _compute(asked, examples, folder, missing, limit, on_task):
            return examples
    lengths = examples.lengths if examples.ragged else None
    return replace(examples, teacher_states=TeacherStates(str(folder), names, precision, lengths))


def _key(examples: Examples, guidance: Guidance, precision: str) -> str:
    """Names the teacher and what it reads; which of its layers, the files say."""
    weights = storage.sha256_file(Path(guidance.teacher) / "model.safetensors")
    ids = hashlib.sha256(json.dumps(guidance.teacher_ids).encode()).hexdigest()
    read = replace(examples, teacher_logits=None, teacher_classes=None, teacher_states=None).digest()
    return hashlib.sha256(f"{weights}{ids}{read}{precision}".encode()).hexdigest()[:16]


def _compute(
    asked: _Asked,
    examples: Examples,
    folder: Path,
    names: Sequence[str],
    limit_bytes: float,
    on_task: Callable[[TaskUse], None] | None,
) -> bool:
    """Put the named files; False, with nothing put, where all of them would take more than the limit."""
    total = int(examples.lengths.sum()) if examples.ragged else len(examples)
    where = str(folder)
    written = told = 0
    with storage.storage_faults(where):
        folder.mkdir(parents=True, exist_ok=True)
        staged = tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-")
    with staged as scratch:
        for rows, found in _ask_all(asked, examples, on_task):
            count = len(found[names[0]])
            if sum(found[name].nbytes for name in names) / count * total > limit_bytes:
                return False
            with storage.storage_faults(where):
                for name in names:
                    _append(states_file(scratch, name), found[name], None if written else total)
            written, told = written + count, told + rows
            progress.tell("the teacher's hidden states", told, len(examples))
        with storage.storage_faults(where):
            for name in names:
                # Whole, and at once: what stands under a name is all there.
                states_file(scratch, name).replace(states_file(folder, name))
    return True


def _append(file: Path, values: NDArray[Any], total: int | None) -> None:
    """Values to the end of a file; before the first of them a header for `total` along the first axis."""
    with file.open("ab") as opened:
        if total is not None:
            shape = (total, *values.shape[1:])
            head = {"descr": values.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(opened, head)
        opened.write(np.ascontiguousarray(values).data)


def _ask_all(
    asked: _Asked, examples: Examples, on_task: Callable[[TaskUse], None] | None
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Number of rows and what the teacher has inside at them, chunk by chunk in the order of the rows."""
    import ray

    options = task_options(asked.nodes, cores=1) | {"num_gpus": int(asked.on_gpu), "max_retries": 3}
    run = ray.remote(**options)(_states_of)
    shared = ray.put((asked, replace(examples, teacher_logits=None, teacher_classes=None)))
    waiting = deque(_chunks(examples))
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    # One alone at first, which tells the size; then no more than few, as what they find waits in memory
    # for its turn to be written.
    at_once, later = 1, 2 * max(1, int(cluster.get("GPU" if asked.on_gpu else "CPU", 1)))
    pending: deque[tuple[int, Any]] = deque()
    while waiting or pending:
        while waiting and len(pending) < at_once:
            first, last = waiting.popleft()
            pending.append((last - first, run.remote(shared, first, last)))
        rows, reference = pending.popleft()
        found, use = ray.get(reference)
        if on_task is not None:
            on_task(use)
        yield rows, found
        at_once = later


def _chunks(examples: Examples) -> Iterator[tuple[int, int]]:
    """First row and the one after the last, of chunks of about as many tokens."""
    if not examples.ragged:
        yield from (
            (first, min(first + _CHUNK_ROWS, len(examples))) for first in range(0, len(examples), _CHUNK_ROWS)
        )
        return
    chunk = np.cumsum(examples.lengths) // _CHUNK_TOKENS
    ends = [*(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(examples)]
    yield from zip([0, *ends[:-1]], ends, strict=True)


def _states_of(
    shared: tuple[_Asked, Examples], first: int, last: int
) -> tuple[dict[str, NDArray[Any]], TaskUse]:
    """By name: (positions, width) without padding, or (rows, ...) where nothing is padded."""
    import torch

    from equipoise.training.initialization import load_initial_model

    start, cpu_begun = ledger_clock.now(), time.process_time()
    asked, examples = shared
    device = "cuda" if asked.on_gpu else "cpu"
    if not asked.on_gpu:
        torch.set_num_threads(1)
    teacher: Any = load_initial_model(asked.guidance.teacher, asked.model_class, None, None)
    teacher.eval().to(device, getattr(torch, _DTYPES[asked.precision]))
    inside = observe(asked.guidance, teacher)
    of_row: dict[int, dict[str, NDArray[Any]]] = {}
    for rows in _batches(examples, first, last):
        taken = take_batch(examples, rows, device, teacher.dtype)
        found = ask_inside(asked.guidance, teacher, inside, taken.inputs)
        stored = {name: _stored(values, asked.precision) for name, values in found.items()}
        for place, row in enumerate(rows.tolist()):
            length = int(examples.lengths[row]) if examples.ragged else None
            of_row[row] = {
                name: values[place : place + 1] if length is None else values[place, :length]
                for name, values in stored.items()
            }
    joined = {
        name: np.concatenate([of_row[row][name] for row in range(first, last)])
        for name in asked.guidance.names
    }
    return joined, TaskUse(start, ledger_clock.now(), time.process_time() - cpu_begun, int(asked.on_gpu))


def _batches(examples: Examples, first: int, last: int) -> Iterator[NDArray[np.int64]]:
    """Rows of about one length, so that little is padded."""
    rows = np.arange(first, last)
    if not examples.ragged:
        yield rows
        return
    order = rows[np.argsort(examples.lengths[first:last], kind="stable")][::-1]
    while len(order):
        count = max(1, _BATCH_TOKENS // int(examples.lengths[order[0]]))
        yield order[:count]
        order = order[count:]


def _stored(values: Any, precision: str) -> NDArray[Any]:
    import torch

    values = values.detach().cpu().contiguous()
    array = (values.view(torch.int16) if precision == "bf16" else values).numpy()
    return np.asarray(array, dtype=STORED[precision])
