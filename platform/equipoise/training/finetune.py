"""Fine-tuning a teacher and distilling a student: the two jobs that share one loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from equipoise.config import RunConfig
from equipoise.config.training import LoraConfig
from equipoise.costs.price_book import core_second_usd, load_prices
from equipoise.tasks import find_task
from equipoise.training.batches import count_steps
from equipoise.training.deepspeed_config import build_deepspeed_config
from equipoise.training.examples import Examples
from equipoise.training.fit import fit
from equipoise.training.guidance import find_guidance
from equipoise.training.job import TrainingJob
from equipoise.training.losses import Objective
from equipoise.training.workers import resolve_workers, trains_on_gpus, worker_resources


def finetune_teacher(
    config: RunConfig,
    base: Path,
    examples: Examples,
    labels: int,
    target: Path,
    scratch: Path,
    *,
    nodes: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Fine-tune the pretrained model in `base`; writes the model folder `target`.

    Args:
        labels: size of a new head; 0 keeps the model's own.
        nodes: Ray labels of the nodes to train on.
    """
    training = config.training
    job = _job(
        config,
        "fine-tuning the teacher",
        base,
        examples,
        training.epochs,
        training.learning_rate,
        labels or None,
        None,
        training.lora,
    )
    return fit(job, examples, target, training=training, scratch=scratch, nodes=nodes)


def distill_student(
    config: RunConfig,
    teacher: Path,
    layers: tuple[int, ...],
    examples: Examples,
    target: Path,
    scratch: Path,
    *,
    start: Path | None = None,
    teacher_ids: Sequence[int] | None = None,
    sparse: bool = False,
    recovery: float = 1.0,
    nodes: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Start from the teacher's layers and learn from its cached logits and the labels.

    Args:
        start: folder of those layers where they were narrowed; the teacher's own otherwise.
        teacher_ids: the teacher's id of each piece of the student's vocabulary, where that is another.
        sparse: weights of the start that are zero stay so.
        recovery: share of `distillation.epochs`; the learning rate falls to its end within it.
        nodes: Ray labels of the nodes to train on.
    """
    settings = config.distillation
    title = f"distilling {len(layers)} layers ({','.join(map(str, layers))})"
    title += f", {recovery:.0%} of the epochs" if recovery < 1 else ""
    kept = layers if start is None else None
    epochs = settings.epochs * recovery
    job = _job(config, title, start or teacher, examples, epochs, settings.learning_rate, None, kept)
    guidance = find_guidance(settings, teacher, layers, teacher_ids)
    job = replace(job, guidance=guidance, sparse=sparse)
    return fit(job, examples, target, training=config.training, scratch=scratch, nodes=nodes)


def train_quantized(
    config: RunConfig,
    start: Path,
    title: str,
    examples: Examples,
    target: Path,
    scratch: Path,
    *,
    sparse: bool = False,
    nodes: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Train a student on with fake quantizers; writes its weights and the quantizers beside them.

    In fp32, whatever `training.precision` says: bf16 itself has no more than 256 levels between two powers
    of two.

    Args:
        start: the trained student's folder, or the teacher's.
        sparse: weights of the start that are zero stay so.
        nodes: Ray labels of the nodes to train on.
    """
    settings = config.compression
    training = config.training.model_copy(update={"precision": "fp32"})
    config = config.model_copy(update={"training": training})
    job = _job(config, title, start, examples, settings.qat_epochs, settings.qat_learning_rate, None, None)
    job = replace(job, quantizers=True, sparse=sparse)
    return fit(job, examples, target, training=training, scratch=scratch, nodes=nodes)


def _job(
    config: RunConfig,
    title: str,
    model: Path,
    examples: Examples,
    epochs: float,
    rate: float,
    labels: int | None,
    layers: tuple[int, ...] | None,
    lora: LoraConfig | None = None,
) -> TrainingJob:
    training = config.training
    steps = count_steps(len(examples), training.batch_size, epochs)
    workers = resolve_workers(training)
    return TrainingJob(
        title=title,
        model_folder=str(model),
        model_class=find_task(config.task).model_class,
        labels=labels,
        layers=layers,
        freeze_embeddings=training.freeze_embeddings,
        lora=None if lora is None else lora.model_dump(),
        deepspeed=build_deepspeed_config(training, workers=workers, total_steps=steps, learning_rate=rate),
        batch_size=training.batch_size,
        total_steps=steps,
        seed=config.seed,
        objective=Objective()
        if examples.teacher_logits is None
        else Objective(config.distillation.temperature, config.distillation.soft_share),
        gradient_checkpointing=training.gradient_checkpointing,
        on_gpus=trains_on_gpus(training),
        checkpoint_every_steps=training.checkpoint_every_steps,
        checkpoint_every_s=training.checkpoint_every_s,
        worker_usd_per_hour=_worker_usd_per_hour(config),
    )


def _worker_usd_per_hour(config: RunConfig) -> float:
    """What a worker's cores cost, at the price that the run is billed at."""
    cores = worker_resources(config.training).get("CPU", 0)
    book = load_prices(config.cost)
    return 3600 * cores * core_second_usd(book, config.cost.training_node or config.cost.node)
