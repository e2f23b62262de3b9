"""The DeepSpeed config generated from a training section."""

from __future__ import annotations

import math
from typing import Any

from equipoise import hardware
from equipoise.config.training import TrainingConfig
from equipoise.errors import ConfigError
from equipoise.training.workers import resolve_workers, trains_on_gpus, worker_range

__all__ = ["build_deepspeed_config", "fit_to_workers", "resolve_precision", "resolve_workers"]


def resolve_precision(training: TrainingConfig) -> str:
    """`fp32`, `bf16` or `fp16`; auto is bf16 where the hardware multiplies it natively."""
    if training.precision != "auto":
        return training.precision
    return "bf16" if trains_on_gpus(training) or hardware.has_bf16() else "fp32"


def build_deepspeed_config(
    training: TrainingConfig, *, workers: int, total_steps: int, learning_rate: float
) -> dict[str, Any]:
    """The config handed to `deepspeed.initialize`; the user's `training.deepspeed` keys win.

    But for the precision, which is the section's: `check_overrides` refuses another, and a training that
    is given one of its own (int8 trains in fp32) keeps it.

    Raises:
        ConfigError: the batch does not divide over the workers and their accumulation steps.
    """
    parts = workers * training.gradient_accumulation
    low, high = worker_range(training)
    if low == high and training.batch_size % parts:
        split = f" × {training.gradient_accumulation} parts" if training.gradient_accumulation > 1 else ""
        raise ConfigError(
            f"does not divide over {workers} workers{split}",
            where="training.batch_size",
            value=training.batch_size,
            remedy=f"use a multiple of {parts}, such as {parts * (training.batch_size // parts + 1)}",
        )
    precision = resolve_precision(training)
    generated: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": math.ceil(training.batch_size / parts),
        "gradient_accumulation_steps": training.gradient_accumulation,
        "gradient_clipping": training.gradient_clipping,
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": _zero(training),
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": learning_rate,
                "weight_decay": training.weight_decay,
                # torch's Adam needs no compiler, and is on a par with the fused one. Only for states in the
                # host's memory DeepSpeed's own is several times as fast.
                "torch_adam": not (training.offload_optimizer and trains_on_gpus(training)),
            },
        },
        "scheduler": _schedule(training, total_steps, learning_rate),
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
    if precision == "fp16":
        generated["fp16"] = {"enabled": True, "loss_scale": training.loss_scale, "initial_scale_power": 16}
    merged = _merge(generated, training.deepspeed)
    for key, named in (("bf16", "bf16"), ("bfloat16", "bf16"), ("fp16", "fp16")):
        if key in merged:
            merged[key] = {**merged[key], "enabled": precision == named}
    return merged


def fit_to_workers(deepspeed: dict[str, Any], batch_size: int, workers: int) -> dict[str, Any]:
    """The same config for the number of workers that an elastic group came to have."""
    parts = workers * deepspeed["gradient_accumulation_steps"]
    return {**deepspeed, "train_micro_batch_size_per_gpu": math.ceil(batch_size / parts)}


def _zero(training: TrainingConfig) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": training.zero_stage}
    if training.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": trains_on_gpus(training)}
    if training.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": trains_on_gpus(training)}
    return zero


def _schedule(training: TrainingConfig, total_steps: int, learning_rate: float) -> dict[str, Any]:
    warmup = {"warmup_num_steps": max(2, round(total_steps * training.warmup_share)), "warmup_type": "linear"}
    total = {"total_num_steps": max(3, total_steps)}
    rates = {"warmup_min_lr": 0.0, "warmup_max_lr": learning_rate}
    if training.schedule == "constant":
        return {"type": "WarmupLR", "params": {**rates, **warmup}}
    if training.schedule == "cosine":
        return {"type": "WarmupCosineLR", "params": {**warmup, **total, "warmup_min_ratio": 0.0}}
    return {"type": "WarmupDecayLR", "params": {**rates, **warmup, **total}}


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Lay one over the other key by key; an optimizer or schedule of another type replaces the whole."""
    if override.get("type", base.get("type")) != base.get("type"):
        return dict(override)
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
