"""Whether the speed of a model measured again is the same, while another process loads the other core."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.compression import reuters
from benchmarks.record import Measured, measured_here_and_now, write_result

from equipoise import hardware, storage
from equipoise.compression.export import export_model
from equipoise.engines import Predictor, open_engine
from equipoise.measurement.speed import measure_speed, pinned_to_one_core
from equipoise.runs import Speed
from equipoise.search.measured import calibration_batches
from equipoise.training.initialization import load_initial_model, save_model

BUILDS = (("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "int8"))
LOADS = {
    "nothing": None,
    "arithmetic": "import numpy as np; a = np.ones((600, 600), 'f')\nwhile True: a @ a",
    "memory": "import numpy as np; a = np.ones(30_000_000, 'f'); b = a.copy()\nwhile True: b[:] = a",
}
"""What the other core does meanwhile."""


def main() -> None:
    """Measure each build several times beside each load; print, and write `results/measurement.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="measurements of a model beside each load")
    given = parser.parse_args()
    config, base, data, task = reuters()
    inputs = data.validation.inputs
    calibration = calibration_batches(task, data.train.inputs, config.seed)
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        save_model(load_initial_model(str(base), task.model_class, len(task.labels), None), source)
        for engine, precision in BUILDS:
            target = Path(scratch) / f"{engine}-{precision}"
            target.mkdir()
            export_model(
                source,
                target,
                engine=engine,
                precision=precision,
                task=task,
                calibration=calibration,
                onnx_cache=source / "onnx",
            )
            found: dict[str, list[Speed]] = {load: [] for load in LOADS}
            with pinned_to_one_core():
                predictor = Predictor(task, open_engine(engine, target, precision, threads=1))
            for _ in range(given.times):
                for load, code in LOADS.items():
                    with _beside(code), pinned_to_one_core():
                        found[load].append(
                            measure_speed(
                                predictor,
                                inputs,
                                requests=100,
                                batches=3,
                                max_batch_size=4,
                                max_batch_tokens=1024,
                                p99_ms=None,
                                model_bytes=storage.folder_bytes(target),
                                resamples=100,
                                seed=config.seed,
                            )
                        )
            figures += _compare(f"{engine} {precision}", found)
    command = f"python -m benchmarks.measurement --times {given.times}"
    print(write_result("measurement", command, figures, measured_here_and_now()))


def _compare(build: str, found: dict[str, list[Speed]]) -> list[Measured]:
    figures = []
    wall = {load: np.array([speed.wall_p50_ms for speed in speeds]) for load, speeds in found.items()}
    corrected = {
        load: np.array([speed.latency_p50_ms.value for speed in speeds]) for load, speeds in found.items()
    }
    calm = float(np.median(corrected["nothing"]))
    for load in found:
        slowdown = np.median([speed.slowdown for speed in found[load]])
        print(
            f"{build}, beside {load}: {_told(wall[load])} ms by the clock, {_told(corrected[load])} "
            f"corrected, slowed {slowdown:.2f} times",
            flush=True,
        )
        figures.append(
            Measured(f"{build} beside {load}: spread of its figures", _spread(corrected[load]), 0.05, "lower")
        )
        if load != "nothing":
            off = abs(float(np.median(corrected[load])) / calm - 1)
            figures.append(Measured(f"{build} beside {load}: from that beside nothing", off, 0.1, "lower"))
    return figures


def _spread(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """The farthest from the median, as a share of it."""
    middle = float(np.median(values))
    return float(np.abs(values / middle - 1).max())


def _told(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


@contextlib.contextmanager
def _beside(code: str | None) -> Iterator[None]:
    """A process on the first core for as long as the block runs."""
    if code is None:
        yield
        return
    pin = f"import os; os.sched_setaffinity(0, [{hardware.usable_cores()[0]}])\n"
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", pin + code], env={**os.environ, **alone}) as neighbour:
        try:
            yield
        finally:
            neighbour.kill()


if __name__ == "__main__":
    main()
