"""What compression gains and loses: builds of a teacher and of its student beside the teacher in PyTorch."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.distillation import GOALS, load_shipped
from benchmarks.record import REPOSITORY, Measured, measured_here_and_now, write_result
from numpy.typing import NDArray

from equipoise import storage
from equipoise.compression.export import export_model
from equipoise.data import prepare_data
from equipoise.engines import Predictor, open_engine
from equipoise.measurement.bootstrap import draw_resamples, interval, resampled_sums
from equipoise.measurement.quality import find_truth
from equipoise.measurement.speed import pinned_to_one_core
from equipoise.measurement.stopwatch import Stopwatch, opened_stopwatch
from equipoise.search.measured import calibration_batches
from equipoise.tasks import Task, find_task
from equipoise.training.pretrained import resolve_pretrained

BUILDS = (("openvino", "fp32"), ("openvino", "int8"), ("onnxruntime", "int8"))
TIMES = {"clinc150-minilm": 10.0, "r8-minilm": 8.0, "conll2003-minilm": 5.0}
"""How many times as fast as the teacher each should be, at a relative loss of `_LOSS` at most."""
_LOSS, _SMALLER = 0.01, 4.0
_ROUNDS, _REQUESTS = 5, 60


def main() -> None:
    """Build, score, time, print; write `results/compressed_CONFIG.json` of the fastest that keeps enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", choices=sorted(GOALS), help="a config of jobs/configs, without .yaml")
    parser.add_argument("--data", type=Path, help="folder of the data's files, where the config names files")
    parser.add_argument(
        "--work",
        type=Path,
        default=REPOSITORY / "runs" / "distillation",
        help="where benchmarks.distillation put the teacher and its students",
    )
    given = parser.parse_args()
    found = Builds(given.config, given.data, given.work / given.config).run()
    command = f"python -m benchmarks.compressed {given.config}{' --data FOLDER' if given.data else ''}"
    name = f"compressed_{given.config.replace('-', '_')}"
    print(write_result(name, command, found, measured_here_and_now()))


class Builds:
    """The builds of one config's models, each beside the teacher in PyTorch, fp32 and one thread."""

    def __init__(self, name: str, data: Path | None, work: Path) -> None:
        self.name, self.work = name, work
        config = load_shipped(name, workers=1, data=data)
        kind = find_task(config.task)
        base = resolve_pretrained(config.model, kind.files)
        self.data = prepare_data(config, kind.layout)
        self.task: Task = kind.create(base, self.data.labels, config.model)
        self.calibration = calibration_batches(self.task, self.data.train.inputs, config.seed)
        test = self.data.test
        self.truth = find_truth(self.task, test.inputs, test.labels)
        self.draws = draw_resamples(len(test), config.measurement.resamples, config.seed)
        rows = np.random.default_rng([config.seed, 3]).integers(0, len(test), _REQUESTS)
        self.timed = [[test.inputs[row]] for row in rows]

    def run(self) -> list[Measured]:
        """Every build's loss and speed, printed; the figures of the fastest that loses little enough."""
        models = ["teacher", *sorted(path.name for path in self.work.glob("student-*"))[:1]]
        whole = self._open(self.work / "teacher" / "model", "torch", "fp32")
        kept: list[tuple[float, float, float, str]] = []
        expected = self._drawn(whole)
        for model in models:
            source = self.work / model / "model"
            for engine, precision in BUILDS:
                target = self.work / "builds" / f"{model}-{engine}-{precision}"
                if not target.is_dir():
                    target.parent.mkdir(exist_ok=True)
                    storage.write_folder(target, partial(self._export, source, engine, precision))
                built = self._open(target, engine, precision)
                got = self._drawn(built)
                loss = interval(1 - got[0] / expected[0], 1 - got[1] / expected[1], len(self.data.test))
                times, alone_ms = self._times_as_fast(built, whole)
                smaller = _weights(self.work / "teacher" / "model") / _weights(target)
                label = f"{model} {engine} {precision}"
                print(
                    f"{label}: {self.task.metric_name} {got[0]:.4f}, relative loss {loss.value:.4f} "
                    f"({loss.low:.4f} to {loss.high:.4f}), {times:.1f} times as fast ({alone_ms:.2f} ms), "
                    f"{smaller:.1f} times smaller",
                    flush=True,
                )
                if loss.value <= _LOSS:
                    kept.append((times, loss.value, smaller, label))
        if not kept:
            return [Measured(f"builds that lose at most {_LOSS:.0%}", 0.0, 1.0, "higher")]
        times, loss_value, smaller, label = max(kept)
        return [
            Measured(f"times as fast as the teacher at batch 1: {label}", times, TIMES[self.name], "higher"),
            Measured(f"relative loss of {self.task.metric_name} on test", loss_value, _LOSS, "lower"),
            Measured("times smaller on disk", smaller, _SMALLER, "higher"),
        ]

    def _export(self, source: Path, engine: str, precision: str, folder: Path) -> None:
        export_model(
            source,
            folder,
            engine=engine,
            precision=precision,
            task=self.task,
            calibration=self.calibration,
            onnx_cache=source / "onnx",
        )

    def _open(self, folder: Path, engine: str, precision: str) -> Predictor:
        with pinned_to_one_core():
            return Predictor(self.task, open_engine(engine, folder, precision, threads=1))

    def _drawn(self, built: Predictor) -> tuple[float, NDArray[np.float64]]:
        """The metric on test, and that of each resample of its rows."""
        answers = built.answers(self.data.test.inputs)
        counts = self.task.tally(answers, self.truth, len(self.data.test))
        drawn: Any = self.task.metric(resampled_sums(counts, self.draws))
        return float(self.task.metric(counts.sum(axis=0))), drawn

    def _times_as_fast(self, built: Predictor, whole: Predictor) -> tuple[float, float]:
        """The teacher's median over the build's, in turns; and the build's median in ms."""
        ratios, own_ms = [], []
        with pinned_to_one_core(), opened_stopwatch() as stopwatch:
            for _ in range(_ROUNDS):
                other, one = (self._median_s(stopwatch, model) for model in (whole, built))
                ratios.append(other / one)
                own_ms.append(one * 1e3)
        return float(np.median(ratios)), float(np.median(own_ms))

    def _median_s(self, stopwatch: Stopwatch, model: Predictor) -> float:
        for single in self.timed[:5]:
            model.predict(single)
        laps = [stopwatch.time(partial(model.predict, single)) for single in self.timed]
        return float(np.median([lap.own_s for lap in laps]))


def _weights(folder: Path) -> int:
    """Bytes of a model's folder but for what a build leaves beside it."""
    return sum(
        file.stat().st_size for file in folder.rglob("*") if file.is_file() and "onnx" not in file.parts[:-1]
    )


if __name__ == "__main__":
    main()
