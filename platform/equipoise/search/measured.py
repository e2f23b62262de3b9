"""The two Ray tasks that measure a candidate: what it is worth, then how fast it is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise import hardware, storage
from equipoise.compression.accuracy_guard import Guard
from equipoise.compression.export import export_model
from equipoise.engines import Predictor, open_engine
from equipoise.measurement.agreement import measure_agreement
from equipoise.measurement.calibration import fit_temperature
from equipoise.measurement.footprint import measure_peak_memory
from equipoise.measurement.quality import find_truth, measure_quality
from equipoise.measurement.robustness import corrupt, measure_robustness
from equipoise.measurement.speed import measure_speed, pinned_to_one_core, queued_batches
from equipoise.observability import progress
from equipoise.runs import Agreement, Quality, Recipe, Speed
from equipoise.search.context import TrialContext
from equipoise.search.recovery import short_reason
from equipoise.tasks import Answers, Arrays, Task
from equipoise.training.teacher_outputs import put_answers, read_answers

_CALIBRATION_BATCHES = 12
_CALIBRATION_ROWS = 16
_AGREEMENT_BATCH = 16
_GUARD_ROWS = 1000
_MEMORY_BATCHES = 4


def build_and_judge(context: TrialContext, recipe: Recipe, source: str, target: str) -> dict[str, Any]:
    """Export a candidate and measure everything about it but its speed.

    Args:
        source: the structure's torch model folder.
        target: where the candidate's model folder goes.

    Returns:
        `quality`, `agreement` (records), `answers` on validation, `bytes`, `spared` operations, `seconds`
        by phase.
    """
    config, data = context.config, context.data
    settings = config.measurement
    threads = len(hardware.usable_cores())
    started = time.perf_counter()
    task = context.load_task(vocabulary=recipe.vocabulary)

    spared: list[str] = []

    def fill(folder: Path) -> None:
        spared[:] = export_model(
            Path(source),
            folder,
            engine=recipe.engine,
            precision=recipe.precision,
            task=task,
            calibration=calibration_batches(task, data.train.inputs, config.seed),
            onnx_cache=Path(source) / "onnx",
            guard=_guard(context, task),
        )

    progress.tell(f"exporting {recipe.label}", 0, 1, force=True)
    storage.write_folder(Path(target), fill)
    exported = time.perf_counter()

    progress.tell(f"judging {recipe.label}", 0, 1, force=True)
    predictor = Predictor(task, open_engine(recipe.engine, Path(target), recipe.precision, threads))
    inputs, truth = data.validation.inputs, context.validation_truth
    answers = predictor.answers(inputs)
    quality = measure_quality(
        answers,
        truth,
        task=task,
        rows=len(inputs),
        temperature=fit_temperature(answers, truth),
        resamples=settings.resamples,
        seed=config.seed,
    )
    quality = _with_robustness(quality, context, predictor, answers)
    agreement = measure_agreement(
        predictor,
        inputs,
        answers,
        _original_answers(context, Path(source), recipe, threads),
        sample_rows=settings.agreement_rows,
        batch_size=_AGREEMENT_BATCH,
        seed=config.seed,
    )
    return {
        "quality": quality,
        "agreement": agreement,
        "answers": answers,
        "bytes": storage.folder_bytes(Path(target)),
        "spared": tuple(spared),
        "seconds": {"export": exported - started, "quality": time.perf_counter() - exported},
    }


def _guard(context: TrialContext, task: Task) -> Guard:
    """Seeded validation rows that int8 is held against."""
    rows = context.data.validation
    drawn = np.random.default_rng([context.config.seed, 11]).permutation(len(rows))[:_GUARD_ROWS]
    taken = rows.select(np.sort(drawn))
    settings = context.config.compression
    return Guard(task, taken.inputs, taken.labels, settings.int8_max_drop, settings.int8_guard_s)


def time_candidate(context: TrialContext, recipe: Recipe, model: str) -> tuple[Speed, dict[str, Any]]:
    """Measure speed in this process, which holds the measured slot, then memory in a new one.

    Returns:
        The figures, and this machine's description with its `fingerprint`.
    """
    progress.tell(f"timing {recipe.label}", 0, 1, force=True)
    config, folder = context.config, Path(model)
    machine = hardware.describe_hardware()
    inputs = context.data.validation.inputs
    task = context.load_task(vocabulary=recipe.vocabulary)
    rows, tokens = config.serving.max_batch_size, config.serving.max_batch_tokens
    with pinned_to_one_core():
        predictor = Predictor(task, open_engine(recipe.engine, folder, recipe.precision, threads=1))
        speed = measure_speed(
            predictor,
            inputs,
            requests=config.measurement.latency_requests,
            batches=config.measurement.throughput_batches,
            max_batch_size=rows,
            max_batch_tokens=tokens,
            p99_ms=config.cost.p99_ms or config.constraints.p99_ms,
            model_bytes=storage.folder_bytes(folder),
            resamples=config.measurement.resamples,
            seed=config.seed,
        )
    rng = np.random.default_rng([config.seed, 12])
    batches = list(itertools.islice(queued_batches(predictor, inputs, rows, tokens, rng), _MEMORY_BATCHES))
    peak_bytes = measure_peak_memory(task, recipe.engine, recipe.precision, folder, batches)
    speed = speed.model_copy(update={"peak_memory_bytes": peak_bytes})
    return speed, {**machine, "fingerprint": hardware.fingerprint(machine)}


def rejection(agreement: Agreement, recipe: Recipe, context: TrialContext) -> str | None:
    """Why a candidate may not be chosen; None where it may."""
    settings = context.config.measurement
    if agreement.neighbour_changes > settings.max_neighbour_changes:
        return (
            f"{agreement.neighbour_changes:.2%} of labels change with a row's neighbours in the batch "
            f"(at most {settings.max_neighbour_changes:.2%})"
        )
    if recipe.precision == "fp32" and agreement.changed_labels > settings.max_export_changes:
        return (
            f"{agreement.changed_labels:.2%} of labels differ from the torch original "
            f"(at most {settings.max_export_changes:.2%})"
        )
    return short_reason(recipe) if recipe.recovery < 1 else None


def calibration_batches(task: Task, inputs: Sequence[Any], seed: int) -> list[Arrays]:
    """Encoded batches of seeded training rows, the model's inputs alone."""
    rng = np.random.default_rng([seed, 4])
    count = min(len(inputs), _CALIBRATION_BATCHES * _CALIBRATION_ROWS)
    rows = rng.choice(len(inputs), count, replace=False)
    batches = [
        task.encode([inputs[row] for row in rows[start : start + _CALIBRATION_ROWS]])
        for start in range(0, count, _CALIBRATION_ROWS)
    ]
    return [{name: batch[name] for name in task.inputs} for batch in batches]


def _with_robustness(
    quality: Quality, context: TrialContext, predictor: Predictor, answers: Answers
) -> Quality:
    config, data, task = context.config, context.data, predictor.task
    settings = config.measurement
    corrupted = corrupt(
        data.validation.inputs,
        layout=task.layout,
        rows=settings.robustness_rows,
        per_row=settings.corruptions_per_row,
        seed=config.seed,
    )
    robustness = measure_robustness(
        corrupted,
        predictor,
        task.tally(answers, context.validation_truth, len(data.validation)),
        data.validation.labels,
        resamples=settings.resamples,
        seed=config.seed,
    )
    rng = np.random.default_rng([config.seed, 5])
    count = min(settings.gap_rows or len(data.train), len(data.train))
    sample = data.train.select(rng.choice(len(data.train), count, replace=False))
    seen = task.tally(predictor.answers(sample.inputs), find_truth(task, sample.inputs, sample.labels), count)
    return quality.model_copy(
        update={
            "robustness": robustness.share,
            "worst_corruption": robustness.worst,
            "worst_corruption_metric": robustness.worst_metric,
            "corruptions": robustness.by_corruption,
            "gap": float(task.metric(seen.sum(axis=0))) - quality.metric.value,
        }
    )


def _original_answers(context: TrialContext, source: Path, recipe: Recipe, threads: int) -> Answers:
    """The structure's answers in torch fp32 on the validation rows, computed once a structure."""
    if recipe.untouched:
        return context.teacher_answers
    file = source / "validation-answers.npz"
    if not file.is_file():
        engine = open_engine("torch", source, "fp32", threads)
        predictor = Predictor(context.load_task(vocabulary=recipe.vocabulary), engine)
        put_answers(file, predictor.answers(context.data.validation.inputs))
    return read_answers(file)
