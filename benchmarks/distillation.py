"""What a teacher is worth: its students, and the same students without a teacher, of a shipped config."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.record import REPOSITORY, Measured, measured_here_and_now, write_result
from numpy.typing import NDArray

from equipoise import hardware, ray_runtime, storage
from equipoise.config import RunConfig, load_config
from equipoise.data import PreparedData, prepare_data
from equipoise.engines import Predictor, open_engine
from equipoise.measurement.bootstrap import draw_resamples, interval, resampled_sums
from equipoise.measurement.quality import find_truth, measure_quality
from equipoise.tasks import Answers, Task, find_task
from equipoise.training.encoding import encode_examples
from equipoise.training.finetune import distill_student, finetune_teacher
from equipoise.training.pretrained import resolve_pretrained
from equipoise.training.state_cache import add_states
from equipoise.training.teacher_outputs import TaskUse, put_answers, read_answers, teacher_answers

GOALS: dict[str, tuple[dict[str, float], float]] = {
    "clinc150-minilm": ({"accuracy": 0.95}, 0.98),
    "r8-minilm": ({"accuracy": 0.965}, 0.98),
    "conll2003-minilm": ({"token accuracy": 0.972, "macro-F1": 0.86}, 0.97),
}
"""Of each config: figures that its teacher should reach on test, and the share that a student should keep."""


@dataclass(frozen=True)
class Trained:
    """A model's answers on test, and the CPU and wall seconds that its steps took."""

    answers: Answers
    cpu_s: float
    loop_s: float


def main() -> None:
    """Train all of them, each once; print and write `results/distillation_CONFIG.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", choices=sorted(GOALS), help="a config of jobs/configs, without .yaml")
    parser.add_argument("--layers", default="0,2,4", help="teacher's layers that a student starts from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="training workers, a core each")
    parser.add_argument("--data", type=Path, help="folder of the data's files, where the config names files")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "distillation")
    given = parser.parse_args()
    ray_runtime.prepare_environment()
    config = load_shipped(given.config, given.workers, given.data)
    layers = tuple(int(layer) for layer in given.layers.split(","))
    ray_runtime.start_ray()
    try:
        comparison = Comparison(config, layers, given.work / given.config)
        figures = comparison.run(given.seeds)
    finally:
        ray_runtime.stop_ray()
    command = (
        f"python -m benchmarks.distillation {given.config} --layers {given.layers} --seeds {given.seeds} "
        f"--workers {given.workers}{' --data FOLDER' if given.data else ''}"
    )
    name = f"distillation_{given.config.replace('-', '_')}"
    print(write_result(name, command, figures, measured_here_and_now()))


def load_shipped(name: str, workers: int, data: Path | None) -> RunConfig:
    """A config of `jobs/configs`, with so many workers, and its files taken from a folder."""
    config = load_config(REPOSITORY / "jobs" / "configs" / f"{name}.yaml")
    training = config.training.model_copy(update={"workers": workers})
    sources = config.data
    if data is not None:
        files = {
            split: str(data / Path(getattr(sources, split)).name) for split in ("train", "validation", "test")
        }
        sources = sources.model_copy(update=files)
    return config.model_copy(update={"training": training, "data": sources})


class Comparison:
    """One teacher, and for each seed a student with it and one without, from the same layers.

    The student without a teacher starts from the same layers of the *pretrained* model, learns from the
    labels alone, and takes more passes over the data: as many as cost the CPU time of its counterpart, the
    teacher's outputs on the training rows included.
    """

    def __init__(self, config: RunConfig, layers: tuple[int, ...], work: Path) -> None:
        self.config, self.layers, self.work = config, layers, work
        kind = find_task(config.task)
        self.base = resolve_pretrained(config.model, kind.files)
        self.data: PreparedData = prepare_data(config, kind.layout)
        self.task: Task = kind.create(self.base, self.data.labels, config.model)
        test = self.data.test
        self.truth = find_truth(self.task, test.inputs, test.labels)
        self.draws = draw_resamples(len(test), config.measurement.resamples, config.seed)

    def run(self, seeds: int) -> list[Measured]:
        """Train, score, print, and the figures beside their goals."""
        teacher = self._trained("teacher", self._train_teacher)
        found = self._print("teacher", teacher)
        goals, kept_goal = GOALS[self.config.name]
        figures = [
            Measured(f"{name} of the teacher", found[name], goal, "higher") for name, goal in goals.items()
        ]
        if not seeds:
            return figures
        taught, alone = [], []
        for seed in range(1, seeds + 1):
            taught.append(self._trained(f"student-{seed}", partial(self._distil, seed)))
            self._print(f"student {seed}", taught[-1])
            share = 1 + self._outputs_cpu_s() / taught[-1].cpu_s
            alone.append(self._trained(f"alone-{seed}", partial(self._train_alone, seed, share)))
            self._print(f"without a teacher {seed}", alone[-1])
        tally = {
            "teacher": self._drawn([teacher]),
            "taught": self._drawn(taught),
            "alone": self._drawn(alone),
        }
        kept = self._figure(tally["taught"], tally["teacher"], lambda one, other: one / other)
        gain = self._figure(tally["taught"], tally["alone"], lambda one, other: one - other)
        rows = len(self.data.test)
        for name, figure in (("kept of the teacher's", kept), ("more than without a teacher", gain)):
            print(f"{name}: {figure.value:.4f} (95% {figure.low:.4f} to {figure.high:.4f}), {rows} test rows")
        figures += [
            Measured(
                f"{self.task.metric_name} that {len(self.layers)} layers keep",
                kept.value,
                kept_goal,
                "higher",
            ),
            Measured("95% bound from below of what a teacher adds", gain.low, 0.0, "higher"),
            Measured(
                "CPU time of the student without a teacher over the other's",
                sum(one.cpu_s for one in alone) / (sum(one.cpu_s + self._outputs_cpu_s() for one in taught)),
                1.0,
                "higher",
            ),
        ]
        return figures

    def _figure(self, one: Any, other: Any, compare: Callable[[Any, Any], Any]) -> Any:
        return interval(float(compare(one[0], other[0])), compare(one[1], other[1]), len(self.data.test))

    def _drawn(self, models: list[Trained]) -> tuple[float, NDArray[np.float64]]:
        """The metric on test, mean over models; the same of each resample of the rows."""
        counts = [self.task.tally(model.answers, self.truth, len(self.data.test)) for model in models]
        point = np.mean([self.task.metric(one.sum(axis=0)) for one in counts])
        drawn = np.mean([self.task.metric(resampled_sums(one, self.draws)) for one in counts], axis=0)
        return float(point), drawn

    def _train_teacher(self, target: Path) -> dict[str, Any]:
        examples = encode_examples(self.task, self.data.train.inputs, self.data.train.labels)
        return finetune_teacher(self.config, self.base, examples, len(self.data.labels), target, self.scratch)

    def _distil(self, seed: int, target: Path) -> dict[str, Any]:
        train, teacher = self.data.train, self.work / "teacher" / "model"
        answers = teacher_answers(teacher, self.task, train.inputs, self.work / "outputs", on_task=self._note)
        examples = encode_examples(self.task, train.inputs, train.labels, answers)
        states = self.work / "states"
        examples = add_states(self.config, teacher, self.layers, examples, states, on_task=self._note)
        config = self.config.model_copy(update={"seed": seed})
        return distill_student(config, teacher, self.layers, examples, target, self.scratch)

    def _train_alone(self, seed: int, share: float, target: Path) -> dict[str, Any]:
        from equipoise.training.initialization import load_initial_model, save_model

        start = self.work / "pretrained-layers"
        if not start.is_dir():
            model = load_initial_model(
                str(self.base), self.task.model_class, len(self.data.labels), self.layers
            )
            storage.write_folder(start, lambda folder: save_model(model, folder))
        distillation = self.config.distillation
        settings = {"epochs": distillation.epochs * share, "learning_rate": distillation.learning_rate}
        training = self.config.training.model_copy(update=settings)
        config = self.config.model_copy(update={"training": training, "seed": seed})
        examples = encode_examples(self.task, self.data.train.inputs, self.data.train.labels)
        return finetune_teacher(config, start, examples, len(self.data.labels), target, self.scratch)

    @property
    def scratch(self) -> Path:
        """Where Ray Train keeps its own."""
        return self.work / "scratch"

    def _note(self, use: TaskUse) -> None:
        file = self.work / "outputs_cpu_s.json"
        before = storage.read_json(str(file)) if file.is_file() else 0.0
        storage.put_json(str(file), before + use.cpu_s)

    def _outputs_cpu_s(self) -> float:
        return float(storage.read_json(str(self.work / "outputs_cpu_s.json")))

    def _trained(self, name: str, train: Callable[[Path], dict[str, Any]]) -> Trained:
        """Train and score, or what an earlier try wrote."""
        folder = self.work / name
        if not (folder / "trained.json").is_file():
            started = time.perf_counter()
            figures = train(folder / "model")
            self.task.save(folder / "model")
            sys.stderr.write(f"{name}: {time.perf_counter() - started:.0f} s\n")
            engine = open_engine("torch", folder / "model", "fp32", len(hardware.usable_cores()))
            put_answers(folder / "test.npz", Predictor(self.task, engine).answers(self.data.test.inputs))
            storage.put_json(str(folder / "trained.json"), figures)
        figures = storage.read_json(str(folder / "trained.json"))
        return Trained(read_answers(folder / "test.npz"), sum(figures["worker_cpu_s"]), figures["loop_s"])

    def _print(self, name: str, model: Trained) -> dict[str, float]:
        """Its figures on test, by name."""
        quality = measure_quality(
            model.answers,
            self.truth,
            task=self.task,
            rows=len(self.data.test),
            temperature=1.0,
            resamples=self.config.measurement.resamples,
            seed=self.config.seed,
        )
        found = {self.task.metric_name: quality.metric}
        found |= {} if quality.macro_f1 is None else {"macro-F1": quality.macro_f1}
        told = ", ".join(
            f"{key} {one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for key, one in found.items()
        )
        accuracy = float((model.answers.predicted == self.truth).mean())
        print(
            f"{name}: {told}, places right {accuracy:.4f}; {model.loop_s:.0f} s, {model.cpu_s:.0f} CPU s",
            flush=True,
        )
        return {key: one.value for key, one in found.items()} | {"token accuracy": accuracy}


if __name__ == "__main__":
    main()
