"""Memory of a process of its own that does nothing but run a model, as a replica does."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.engines import open_engine
from equipoise.tasks import Arrays, Task, find_task

_TIMEOUT_S = 300
_SPEC, _BATCHES = "footprint.json", "batches.npz"
_LOG = logging.getLogger(__name__)


def measure_peak_memory(
    task: Task, engine: str, precision: str, model: Path, batches: Sequence[Sequence[Any]]
) -> int | None:
    """Peak resident memory of a new process that opens a model and runs batches on one thread, in bytes.

    The process holds what a replica holds besides Ray Serve: Python, the engine's libraries, the
    preprocessor, weights, and what the largest of the batches needs.

    Args:
        model: folder that the engine opens.
        batches: inputs, run one batch after another.

    Returns:
        None where the system does not tell, or the process failed: the reason is in the log.
    """
    with tempfile.TemporaryDirectory(prefix="equipoise-footprint-") as scratch:
        folder = Path(scratch)
        task.save(folder)
        spec = {"task": task.describe(), "engine": engine, "precision": precision, "model": str(model)}
        (folder / _SPEC).write_text(json.dumps(spec), encoding="utf-8")
        encoded = [task.encode(inputs) for inputs in batches]
        arrays: dict[str, Any] = {
            f"{place}/{name}": batch[name] for place, batch in enumerate(encoded) for name in task.inputs
        }
        np.savez(folder / _BATCHES, **arrays)
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-m", __name__, str(folder)],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=True,
            )
            found: int | None = json.loads(done.stdout)
            return found
        except (subprocess.SubprocessError, ValueError) as error:
            told = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            _LOG.warning("memory of %s is not measured: %s", model, (told or ["no reason told"])[-1])
            return None


def _run(folder: Path) -> int | None:
    """The new process: the peak of its own resident memory in bytes."""
    spec = json.loads((folder / _SPEC).read_text(encoding="utf-8"))
    task = find_task(spec["task"]["name"]).load(folder, spec["task"])
    engine = open_engine(spec["engine"], Path(spec["model"]), spec["precision"], threads=1)
    with np.load(folder / _BATCHES, allow_pickle=False) as arrays:
        for place in range(len(arrays.files) // len(task.inputs)):
            batch: Arrays = {name: arrays[f"{place}/{name}"] for name in task.inputs}
            engine.run(batch)
    return _peak_bytes()


def _peak_bytes() -> int | None:
    # Not `getrusage`: Linux keeps the peak of whoever started a process over its exec.
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1]) * 1024 for words in lines if words and words[0] == "VmHWM:"), None)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_run(Path(sys.argv[1]))))
