"""The DeepSpeed config generated from a training section."""

from __future__ import annotations

from typing import Any

from equipoise import hardware
from equipoise.config.training import TrainingConfig
from equipoise.errors import ConfigError


def resolve_precision(training: TrainingConfig) -> str:
    """`fp32` or `bf16`; auto is bf16 where the hardware multiplies it natively."""
    if training.precision != "auto":
        return training.precision
    return "bf16" if hardware.has_bf16() or hardware.describe_hardware()["gpus"] else "fp32"


def resolve_workers(training: TrainingConfig) -> int:
    """Number of workers; auto is one a GPU, or one a core."""
    if training.workers != "auto":
        return training.workers
    machine = hardware.describe_hardware()
    return len(machine["gpus"]) or machine["cores"]


def build_deepspeed_config(
    training: TrainingConfig, *, workers: int, total_steps: int, learning_rate: float
) -> dict[str, Any]:
    """The config handed to `deepspeed.initialize`; the user's `training.deepspeed` keys win.

    Raises:
        ConfigError: the batch does not divide over the workers.
    """
    if training.batch_size % workers:
        raise ConfigError(
            f"does not divide over {workers} workers",
            where="training.batch_size",
            value=training.batch_size,
            remedy=f"use a multiple of {workers}, such as {workers * (training.batch_size // workers + 1)}",
        )
    generated: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": training.batch_size // workers,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": training.gradient_clipping,
        "bf16": {"enabled": resolve_precision(training) == "bf16"},
        "zero_optimization": {"stage": training.zero_stage},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": learning_rate,
                "weight_decay": training.weight_decay,
                # torch's Adam needs no compiler; DeepSpeed's CPU Adam would build at first use.
                "torch_adam": True,
            },
        },
        "scheduler": {
            "type": "WarmupDecayLR",
            "params": {
                "warmup_min_lr": 0.0,
                "warmup_max_lr": learning_rate,
                "warmup_num_steps": max(2, round(total_steps * training.warmup_share)),
                "total_num_steps": max(3, total_steps),
                "warmup_type": "linear",
            },
        },
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
    return _merge(generated, training.deepspeed)


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
