"""Teacher outputs: computed once, in parallel Ray tasks, cached on disk."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise import storage
from equipoise.costs import ledger_clock
from equipoise.data.layout import row_key
from equipoise.engines import Predictor, open_engine
from equipoise.observability import progress
from equipoise.tasks import Answers, Task, join_answers

_CHUNK_ROWS = 128
_CHUNK_TOKENS = 8192


class TaskUse(NamedTuple):
    """What a Ray task took: seconds since the epoch by the ledger's clock, CPU seconds, GPUs it held."""

    start: float
    stop: float
    cpu_s: float
    gpus: float = 0


def teacher_answers(
    teacher: Path,
    task: Task,
    inputs: Sequence[Any],
    cache: Path,
    precision: str = "fp32",
    top: int | None = None,
    on_task: Callable[[TaskUse], None] | None = None,
) -> Answers:
    """Answers at each place of the rows; read from the cache where the same were computed before.

    Args:
        top: of a language model, the likeliest tokens that are kept at each place, for students to learn
            from; None keeps what measurement needs.
        on_task: told of each Ray task that ran, on one core each.
    """
    import ray

    content = hashlib.sha256()
    for number, value in enumerate(inputs):
        content.update((("\x01" if number else "") + row_key(value)).encode())
    content.update(storage.sha256_file(teacher / "model.safetensors").encode())
    content.update(f"{precision}{task.describe()}{top or ''}".encode())
    file = cache / f"{content.hexdigest()[:16]}.npz"
    if file.is_file():
        return read_answers(file)
    lengths = task.lengths(inputs)
    order = np.argsort(lengths, kind="stable")
    size = _CHUNK_ROWS if task.labels else max(1, min(_CHUNK_ROWS, _CHUNK_TOKENS // int(lengths.max())))
    chunks = [order[i : i + size] for i in range(0, len(order), size)]
    run = ray.remote(num_cpus=1)(_answers_of)
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    # More would wait anyway, and hold their rows in memory meanwhile.
    at_once = 4 * max(1, int(cluster.get("CPU", 1)))
    pending: dict[Any, NDArray[np.int64]] = {}
    parts: list[tuple[NDArray[np.int64], Answers]] = []
    done = 0
    while chunks or pending:
        while chunks and len(pending) < at_once:
            rows = chunks.pop(0)
            given = [inputs[i] for i in rows.tolist()]
            pending[run.remote(str(teacher), task.describe(), precision, given, top)] = rows
        ready, _ = ray.wait(list(pending), num_returns=1)
        rows = pending.pop(ready[0])
        found, use = ray.get(ready[0])
        parts.append((rows, found))
        if on_task is not None:
            on_task(use)
        done += len(rows)
        progress.tell("teacher outputs", done, len(inputs))
    answers = join_answers(parts)
    put_answers(file, answers)
    return answers


def put_answers(file: Path, answers: Answers) -> None:
    """Write answers whole, without pickle."""
    classes = {} if answers.classes is None else {"classes": answers.classes}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, logits=answers.logits, row_of=answers.row_of, **classes)
    storage.put_bytes(str(file), buffer.getvalue())


def read_answers(file: Path) -> Answers:
    """What `put_answers` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        return Answers(arrays["logits"], arrays["row_of"], arrays.get("classes"))


def _answers_of(
    teacher: str, description: dict[str, Any], precision: str, inputs: list[Any], top: int | None
) -> tuple[Answers, TaskUse]:
    from equipoise.tasks import find_task

    start, cpu_begun = ledger_clock.now(), time.process_time()
    task = find_task(description["name"]).load(Path(teacher), description)
    predictor = Predictor(task, open_engine("torch", Path(teacher), precision, threads=1))
    if top is None:
        answers = predictor.answers(inputs)
    else:
        reader: Any = task
        answers = predictor.collect(inputs, lambda outputs, arrays: reader.read_top(outputs, arrays, top))
    return answers, TaskUse(start, ledger_clock.now(), time.process_time() - cpu_begun)
