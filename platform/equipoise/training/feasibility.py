"""What a training section asks of hardware or model and cannot have, found before any worker starts."""

from __future__ import annotations

import os
from pathlib import Path

from equipoise import hardware
from equipoise.config.training import TrainingConfig
from equipoise.engines.architectures import build_without_weights, read_config
from equipoise.errors import ConfigError
from equipoise.training.deepspeed_overrides import check_overrides
from equipoise.training.workers import trains_on_gpus, worker_range, worker_resources

_WITHOUT_BF16 = ("V100", "P100", "P4", "K80", "T4")
"""Accelerators, by Ray's names, that are older than bf16 multiplication."""


def check_feasible(training: TrainingConfig) -> None:
    """Refuse what the hardware, or DeepSpeed on it, cannot do.

    Raises:
        ConfigError: names the key, its value and what would work.
    """
    _check_workers(training)
    _check_precision(training)
    check_overrides(training)
    _check_zero(training)


def check_recomputation(training: TrainingConfig, base: Path, model_class: str) -> None:
    """Refuse gradient checkpointing of a model that cannot compute its activations again.

    Raises:
        ConfigError: it is asked for, and the model in `base` has none.
    """
    if not training.gradient_checkpointing:
        return
    config = read_config(base)
    if not build_without_weights(config, model_class).supports_gradient_checkpointing:
        raise ConfigError(
            f"a {config.model_type} cannot compute its activations again",
            where="training.gradient_checkpointing",
            value=True,
            remedy="leave it out",
        )


def _check_workers(training: TrainingConfig) -> None:
    low, high = worker_range(training)
    if low > high:
        raise ConfigError(
            "the range runs backwards",
            where="training.workers",
            value=training.workers,
            remedy=f"{high}..{low}",
        )
    if high > training.batch_size:
        raise ConfigError(
            "a batch has fewer rows than there are workers",
            where="training.workers",
            value=training.workers,
            remedy=f"use at most {training.batch_size}, or a larger training.batch_size",
        )
    if os.environ.get("RAY_ADDRESS"):
        return  # What a cluster has, or can grow to, only its scheduler knows.
    machine = hardware.describe_hardware()
    for name, held in (("CPU", machine["cores"]), ("GPU", len(machine["gpus"]))):
        asked = low * worker_resources(training).get(name, 0)
        if asked > held:
            raise ConfigError(
                f"{low} workers need {asked:g} {name}s, and this machine has {held}",
                where="training.workers",
                value=training.workers,
                remedy="use fewer workers or smaller training.resources_per_worker, or set RAY_ADDRESS to a "
                "cluster that has them",
            )


def _check_precision(training: TrainingConfig) -> None:
    on_gpus = trains_on_gpus(training)
    if training.precision == "fp16" and not on_gpus and not hardware.has_fp16():
        raise ConfigError(
            "this CPU does not multiply fp16",
            where="training.precision",
            value="fp16",
            remedy="use bf16 or fp32, or train on a GPU",
        )
    kind = (training.accelerator_type or "").upper()
    if training.precision in ("auto", "bf16") and any(name in kind.split("-") for name in _WITHOUT_BF16):
        raise ConfigError(
            f"a {training.accelerator_type} does not multiply bf16",
            where="training.precision",
            value=training.precision,
            remedy="use fp16 or fp32",
        )
    if training.loss_scale and training.precision != "fp16":
        raise ConfigError(
            "only fp16 has a loss scale",
            where="training.loss_scale",
            value=training.loss_scale,
            remedy="leave it out, or set training.precision to fp16",
        )


def _check_zero(training: TrainingConfig) -> None:
    stage = training.deepspeed.get("zero_optimization", {}).get("stage", training.zero_stage)
    if training.offload_optimizer and stage == 0:
        raise ConfigError(
            "optimizer states are only offloaded where ZeRO shards them",
            where="training.offload_optimizer",
            value=True,
            remedy="use training.zero_stage 1, 2 or 3",
        )
    if training.offload_parameters and stage != 3:
        raise ConfigError(
            f"ZeRO stage {stage} keeps whole parameters on each worker",
            where="training.offload_parameters",
            value=True,
            remedy="use training.zero_stage 3",
        )
    torchs = training.deepspeed.get("optimizer", {}).get("params", {}).get("torch_adam", False)
    here = trains_on_gpus(training) and not os.environ.get("RAY_ADDRESS")
    if training.offload_optimizer and here and not torchs and not hardware.has_compiler():
        raise ConfigError(
            "DeepSpeed's Adam for the host's memory has to be compiled, and there is no C++ compiler",
            where="training.offload_optimizer",
            value=True,
            remedy="install g++, or set training.deepspeed to {optimizer: {params: {torch_adam: true}}}",
        )
