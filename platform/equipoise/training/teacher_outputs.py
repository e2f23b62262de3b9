"""Teacher logits for the training rows: computed once, in parallel Ray tasks, cached on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise import storage
from equipoise.engines import Predictor, open_engine
from equipoise.observability import progress
from equipoise.tasks import Task

_CHUNK_ROWS = 128


def teacher_logits(
    teacher: Path, task: Task, texts: Sequence[str], cache: Path, precision: str = "fp32"
) -> NDArray[np.float32]:
    """Logits of shape (rows, labels); read from the cache where the same were computed before."""
    import ray

    content = hashlib.sha256("\x00".join(texts).encode())
    content.update(storage.sha256_file(teacher / "model.safetensors").encode())
    content.update(f"{precision}{task.describe()}".encode())
    file = cache / f"{content.hexdigest()[:16]}.npy"
    if file.is_file():
        cached: NDArray[np.float32] = np.load(file, allow_pickle=False)
        return cached
    order = np.argsort(task.lengths(texts), kind="stable")
    chunks = [order[i : i + _CHUNK_ROWS] for i in range(0, len(order), _CHUNK_ROWS)]
    run = ray.remote(num_cpus=1)(_logits_of)
    pending = {
        run.remote(str(teacher), task.describe(), str(teacher), precision, [texts[i] for i in rows]): rows
        for rows in chunks
    }
    logits = np.empty((len(texts), len(task.labels)), dtype=np.float32)
    done = 0
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1)
        rows = pending.pop(ready[0])
        logits[rows] = ray.get(ready[0])
        done += len(rows)
        progress.tell("teacher outputs", done, len(texts))
    buffer = io.BytesIO()
    np.save(buffer, logits, allow_pickle=False)
    storage.put_bytes(str(file), buffer.getvalue())
    return logits


def _logits_of(
    teacher: str, description: dict[str, Any], task_folder: str, precision: str, texts: list[str]
) -> NDArray[np.float32]:
    from equipoise.tasks import find_task

    task = find_task(description["name"]).load(Path(task_folder), description)
    predictor = Predictor(task, open_engine("torch", Path(teacher), precision, threads=1))
    return predictor.logits(texts)
