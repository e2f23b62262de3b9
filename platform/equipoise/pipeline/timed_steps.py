"""A few steps of every stage, really taken: what an estimate rests on where no like run was seen yet.

Steps are counted once they go evenly. A student's training is timed beside the teacher's: the first one on a
machine also loads, and may build, what later ones find there, and a run pays that once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from equipoise import hardware, ray_runtime, storage
from equipoise.compression.structure import structure_key
from equipoise.config import RunConfig
from equipoise.costs.estimate import RunSize, SeenRun
from equipoise.data import Rows
from equipoise.engines import Predictor, open_engine
from equipoise.measurement.quality import find_truth
from equipoise.measurement.speed import measure_speed, pinned_to_one_core
from equipoise.pipeline.preflight import Checked
from equipoise.pipeline.seen_runs import judged_rows, run_kind
from equipoise.runs import Recipe
from equipoise.search.context import TrialContext
from equipoise.search.measured import build_and_judge
from equipoise.search.space import Space
from equipoise.tasks import find_task
from equipoise.training.guidance import count_passes

_STEPS = 24
"""Of each training; the second half is counted."""
_JUDGED_ROWS = 48
_TIMED_REQUESTS, _TIMED_BATCHES = 12, 2
_TRIED_BATCHES = 7
"""Batches, about, that finding the best size takes."""
_DEPLOY_S = 15.0
"""Of starting an endpoint, taking its requests and ending it; a run does so twice."""
_TRIAL_S = 1.5
"""That Ray Tune and the sampler take a trial."""
_LIBRARIES = {
    "torch": ("torch", "transformers"),
    "onnxruntime": ("torch", "transformers", "onnx", "onnxruntime"),
    "openvino": ("torch", "transformers", "openvino", "nncf"),
}
"""What an engine's export imports: a run does so once, and not for each candidate."""


@dataclass(frozen=True)
class Training:
    """Seconds of one training: of all but its even steps, and of a row in those."""

    start_s: float
    row_s: float

    def seconds(self, rows: float) -> float:
        """Of a training of so many rows, each as often as it is passed."""
        return self.start_s + rows * self.row_s


@dataclass(frozen=True)
class Judging:
    """Seconds of one candidate of the teacher's own depth."""

    fixed_s: float
    """Export, opening and arithmetic."""
    row_s: float
    speed_s: float
    """Of the timing."""

    def seconds(self, rows: float, depth_share: float) -> float:
        """Of a candidate that answers so many rows."""
        return self.fixed_s + (rows * self.row_s + self.speed_s) * depth_share


def time_stages(config: RunConfig, checked: Checked, size: RunSize, space: Space) -> SeenRun:
    """Train, export, judge and time a little of everything, in a folder that is thrown away.

    Returns:
        A record of a run of `size`, had every stage gone on at the rates that were seen.

    Raises:
        EquipoiseError: a stage failed.
    """
    started = time.perf_counter()
    ray_runtime.start_ray()
    ray_s = time.perf_counter() - started
    try:
        with tempfile.TemporaryDirectory(prefix="equipoise-estimate-") as folder:
            found = _Bench(config, checked, size, space, Path(folder))
            teacher = found.time_teacher()
            context = found.context()
            judged = {engine: found.time_candidate(context, recipe) for engine, recipe in found.recipes()}
            student = found.time_student(context, teacher)
    finally:
        ray_runtime.stop_ray()
    forward_s = judged["torch"].row_s
    seconds = {
        "teacher": teacher.seconds(size.teacher_rows),
        "outputs": (size.output_rows + found.states_passes() * len(checked.data.train)) * forward_s,
        "students": math.fsum(
            student.start_s + size.student_rows * student.row_s * depth for depth in size.student_depths
        ),
        "candidates": found.candidates_s(judged),
        "rest": ray_s
        + 2 * _DEPLOY_S
        + _TRIAL_S * size.candidates
        + len(checked.data.test) * forward_s
        + (_learning_curve_s(teacher, size) if config.cost.learning_curve else 0.0),
    }
    return SeenRun(
        run="timed steps",
        timed=True,
        kind=run_kind(config),
        fingerprint=hardware.fingerprint(hardware.describe_hardware()),
        size=size,
        seconds=seconds,
        start_s=teacher.start_s,
        student_start_s=student.start_s,
    )


def _learning_curve_s(teacher: Training, size: RunSize) -> float:
    """Of the teacher on a quarter and on half of the labels."""
    return teacher.seconds(size.teacher_rows / 4) + teacher.seconds(size.teacher_rows / 2)


class _Bench:
    """The stages of one config on a few of its rows, at their own lengths."""

    def __init__(
        self, config: RunConfig, checked: Checked, size: RunSize, space: Space, folder: Path
    ) -> None:
        self.config, self.checked, self.size, self.space, self.folder = config, checked, size, space, folder
        self.teacher = folder / "teacher"
        self.threads = len(hardware.usable_cores())
        self.task = find_task(config.task).create(checked.base, checked.data.labels, config.model)
        self.train = _some(checked.data.train, _STEPS * config.training.batch_size, config.seed)

    def time_teacher(self) -> Training:
        """The teacher's own training; its model stands in the folder afterwards."""
        from equipoise.training.encoding import encode_examples
        from equipoise.training.finetune import finetune_teacher

        config = self._with_steps("training")
        examples = encode_examples(self.task, self.train.inputs, self.train.labels)
        start = time.perf_counter()
        figures = finetune_teacher(
            config, self.checked.base, examples, len(self.checked.data.labels), self.teacher, self.folder
        )
        found = _training(time.perf_counter() - start, figures)
        self.task.save(self.teacher)
        return found

    def time_student(self, context: TrialContext, teacher: Training) -> Training:
        """A distillation of one layer: of the first student that there is, or by the teacher's rates where
        there is none, or where its teacher's outputs are large (a language model)."""
        from equipoise.training.encoding import encode_examples
        from equipoise.training.finetune import distill_student
        from equipoise.training.state_cache import add_states

        by_teacher = Training(teacher.start_s, teacher.row_s / self.size.teacher_depth)
        recipe = next((recipe for recipe in self._recipes() if recipe.distilled), None)
        if recipe is None or not self.task.labels:
            return by_teacher
        task = context.load_task()
        answers = Predictor(task, open_engine("torch", self.teacher, "fp32", self.threads)).answers(
            self.train.inputs
        )
        examples = encode_examples(task, self.train.inputs, self.train.labels, answers)
        config = self._with_steps("distillation")
        examples = add_states(config, self.teacher, recipe.layers, examples, self.folder / "states")
        start = time.perf_counter()
        figures = distill_student(
            config, self.teacher, recipe.layers, examples, self.folder / structure_key(recipe), self.folder
        )
        found = _training(time.perf_counter() - start, figures)
        return Training(found.start_s, found.row_s / len(recipe.layers))

    def context(self) -> TrialContext:
        """What trials share, on a few rows."""
        data, task = self.checked.data, find_task(self.config.task).load(self.teacher, self.task.describe())
        few = _some(data.validation, _JUDGED_ROWS, self.config.seed)
        measurement = self.config.measurement.model_copy(
            update={"robustness_rows": len(few), "gap_rows": len(few), "agreement_rows": len(few)}
        )
        answers = Predictor(task, open_engine("torch", self.teacher, "fp32", self.threads)).answers(
            few.inputs
        )
        return TrialContext(
            config=self.config.model_copy(update={"measurement": measurement}),
            folder=str(self.folder),
            data=replace(data, train=self.train, validation=few),
            task_description=self.task.describe(),
            lessons=self.train,
            train_answers=answers,
            teacher_answers=answers,
            validation_truth=find_truth(task, few.inputs, few.labels),
            teacher_core_s=0.0,
            revision="",
        )

    def recipes(self) -> list[tuple[str, Recipe]]:
        """The teacher, and of each further engine the first recipe searched, at the teacher's depth."""
        found = {"torch": self.space.teacher}
        for recipe in self._recipes():
            runtime = {"engine": recipe.engine, "precision": recipe.precision}
            found.setdefault(recipe.engine, self.space.teacher.model_copy(update=runtime))
        return list(found.items())

    def time_candidate(self, context: TrialContext, recipe: Recipe) -> Judging:
        """Export, judge and time one recipe on a few rows."""
        for library in _LIBRARIES.get(recipe.engine, ()):
            importlib.import_module(library)
        target = self.folder / "models" / recipe.engine
        target.parent.mkdir(exist_ok=True)
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):  # A run exports in Ray's workers; nncf draws bars.
            build_and_judge(context, recipe, str(self.teacher), str(target))
        whole_s = time.perf_counter() - start

        task, inputs = context.load_task(), context.data.validation.inputs
        predictor = Predictor(task, open_engine(recipe.engine, target, recipe.precision, self.threads))
        predictor.answers(inputs)
        start = time.perf_counter()
        predictor.answers(inputs)
        row_s = (time.perf_counter() - start) / len(inputs)
        few = judged_rows(context.config, len(inputs), len(self.train), timed=False)

        settings = self.config.measurement
        with pinned_to_one_core():
            start = time.perf_counter()
            engine = open_engine(recipe.engine, target, recipe.precision, threads=1)
            opening_s = time.perf_counter() - start
            speed = measure_speed(
                Predictor(task, engine), inputs, requests=_TIMED_REQUESTS, batches=_TIMED_BATCHES,
                max_batch_size=self.config.serving.max_batch_size,
                max_batch_tokens=self.config.serving.max_batch_tokens, p99_ms=None,
                model_bytes=storage.folder_bytes(target), resamples=10, seed=self.config.seed,
            )  # fmt: skip
        single_s = (speed.wall_p50_ms or speed.latency_p50_ms.value) / 1000
        batch_s = speed.batch_size / speed.throughput_rps.value
        return Judging(
            fixed_s=max(whole_s - few * row_s, 0.0) + opening_s,
            row_s=row_s,
            speed_s=settings.latency_requests * single_s
            + (settings.throughput_batches + _TRIED_BATCHES) * batch_s,
        )

    def states_passes(self) -> int:
        """Times that the teacher goes over the training rows for what it has inside."""
        layers = [recipe.layers for recipe in self._recipes() if recipe.distilled]
        return count_passes(self.config.distillation, self.teacher, layers)

    def candidates_s(self, judged: dict[str, Judging]) -> float:
        """Of all candidates; those that the sampler is free to pick take the mean of the known ones."""
        data = self.checked.data
        rows = judged_rows(self.config, len(data.validation), len(data.train), timed=False)
        each = [
            judged[recipe.engine].seconds(rows, recipe.depth / self.size.teacher_depth)
            for recipe in self._recipes()
        ]
        return math.fsum(each) / len(each) * self.size.candidates

    def _recipes(self) -> list[Recipe]:
        return self.space.anchors()[: self.size.candidates]

    def _with_steps(self, section: str) -> RunConfig:
        """The config with as many epochs of the few rows as make the steps."""
        steps = _STEPS * self.config.training.batch_size
        epochs = {"epochs": max(1.0, steps / max(len(self.train), 1))}
        return self.config.model_copy(
            update={section: getattr(self.config, section).model_copy(update=epochs)}
        )


def _training(seconds: float, figures: dict[str, Any]) -> Training:
    """What is not even steps is start."""
    row_s = 1 / float(figures["settled_rows_per_s"])
    rows = float(figures["rows_per_s"]) * float(figures["loop_s"])
    return Training(max(seconds - rows * row_s, 0.0), row_s)


def _some(rows: Rows, count: int, seed: int) -> Rows:
    """Seeded rows, of lengths as they come."""
    drawn = np.random.default_rng([seed, 12]).permutation(len(rows))[:count]
    return rows.select(np.sort(drawn).tolist())
