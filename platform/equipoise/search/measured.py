"""The two Ray tasks that measure a candidate: what it is worth, then how fast it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from equipoise import hardware, storage
from equipoise.compression.export import export_model
from equipoise.engines import Predictor, open_engine
from equipoise.measurement.agreement import measure_agreement
from equipoise.measurement.calibration import fit_temperature
from equipoise.measurement.quality import measure_quality
from equipoise.measurement.robustness import corrupt, measure_robustness
from equipoise.measurement.speed import measure_speed, pinned_to_one_core
from equipoise.observability import progress
from equipoise.runs import Agreement, Quality, Recipe, Speed
from equipoise.search.context import TrialContext
from equipoise.tasks import Arrays, Task

_CALIBRATION_BATCHES = 12
_CALIBRATION_ROWS = 16
_AGREEMENT_BATCH = 16


def build_and_judge(context: TrialContext, recipe: Recipe, source: str, target: str) -> dict[str, Any]:
    """Export a candidate and measure everything about it but its speed.

    Args:
        source: the structure's torch model folder.
        target: where the candidate's model folder goes.

    Returns:
        `quality`, `agreement` (records), `predictions` (validation label numbers), `bytes`,
        `seconds` by phase.
    """
    config, data = context.config, context.data
    settings = config.measurement
    threads = len(hardware.usable_cores())
    started = time.perf_counter()
    task = context.load_task()

    def fill(folder: Path) -> None:
        export_model(
            Path(source),
            folder,
            engine=recipe.engine,
            precision=recipe.precision,
            task=task,
            calibration=calibration_batches(task, data.train.texts, config.seed),
            onnx_cache=Path(source) / "onnx",
        )

    progress.tell(f"exporting {recipe.label}", 0, 1, force=True)
    storage.write_folder(Path(target), fill)
    exported = time.perf_counter()

    progress.tell(f"judging {recipe.label}", 0, 1, force=True)
    predictor = Predictor(task, open_engine(recipe.engine, Path(target), recipe.precision, threads))
    texts, truth = data.validation.texts, context.label_numbers(data.validation.labels)
    logits = predictor.logits(texts)
    quality = measure_quality(
        logits,
        truth,
        metric_name=task.metric_name,
        temperature=fit_temperature(logits, truth),
        resamples=settings.resamples,
        seed=config.seed,
    )
    quality = _with_robustness(quality, context, predictor, logits, truth)
    original = _original_logits(context, Path(source), recipe, threads)
    agreement = measure_agreement(
        predictor,
        texts,
        logits,
        original,
        sample_rows=settings.agreement_rows,
        batch_size=_AGREEMENT_BATCH,
        seed=config.seed,
    )
    return {
        "quality": quality,
        "agreement": agreement,
        "predictions": logits.argmax(axis=1),
        "bytes": storage.folder_bytes(Path(target)),
        "seconds": {"export": exported - started, "quality": time.perf_counter() - exported},
    }


def time_candidate(context: TrialContext, recipe: Recipe, model: str) -> Speed:
    """Measure speed; the caller holds the measured slot."""
    progress.tell(f"timing {recipe.label}", 0, 1, force=True)
    settings = context.config.measurement
    with pinned_to_one_core():
        engine = open_engine(recipe.engine, Path(model), recipe.precision, threads=1)
        return measure_speed(
            Predictor(context.load_task(), engine),
            context.data.validation.texts,
            requests=settings.latency_requests,
            batches=settings.throughput_batches,
            batch_size=settings.batch_size,
            resamples=settings.resamples,
            seed=context.config.seed,
        )


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
    return None


def calibration_batches(task: Task, texts: list[str], seed: int) -> list[Arrays]:
    """Encoded batches of seeded training rows."""
    rng = np.random.default_rng([seed, 4])
    count = min(len(texts), _CALIBRATION_BATCHES * _CALIBRATION_ROWS)
    rows = rng.choice(len(texts), count, replace=False)
    return [
        task.encode([texts[row] for row in rows[start : start + _CALIBRATION_ROWS]])
        for start in range(0, count, _CALIBRATION_ROWS)
    ]


def _with_robustness(
    quality: Quality, context: TrialContext, predictor: Predictor, logits: Any, truth: Any
) -> Quality:
    config, data = context.config, context.data
    settings = config.measurement
    corrupted = corrupt(
        data.validation.texts,
        rows=settings.robustness_rows,
        per_row=settings.corruptions_per_row,
        seed=config.seed,
    )
    robustness = measure_robustness(
        corrupted,
        logits.argmax(axis=1),
        truth,
        lambda texts: predictor.logits(texts).argmax(axis=1).astype(np.int64),
        resamples=settings.resamples,
        seed=config.seed,
    )
    rng = np.random.default_rng([config.seed, 5])
    count = min(settings.gap_rows or len(data.train), len(data.train))
    sample = data.train.select(rng.choice(len(data.train), count, replace=False))
    seen = predictor.logits(sample.texts).argmax(axis=1) == context.label_numbers(sample.labels)
    return quality.model_copy(
        update={
            "robustness": robustness.share,
            "worst_corruption": robustness.worst,
            "worst_corruption_metric": robustness.worst_metric,
            "corruptions": robustness.by_corruption,
            "gap": float(seen.mean()) - quality.metric.value,
        }
    )


def _original_logits(context: TrialContext, source: Path, recipe: Recipe, threads: int) -> Any:
    """The structure's logits in torch fp32 on the validation rows, computed once a structure."""
    if not recipe.distilled:
        return context.validation_logits
    file = source / "validation-logits.npy"
    if not file.is_file():
        engine = open_engine("torch", source, "fp32", threads)
        logits = Predictor(context.load_task(), engine).logits(context.data.validation.texts)
        staged = file.with_name(".tmp-logits.npy")
        np.save(staged, logits, allow_pickle=False)
        staged.replace(file)
    return np.load(file, allow_pickle=False)
