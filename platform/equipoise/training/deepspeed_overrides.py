"""DeepSpeed keys that the run config lays over the generated ones, where another key of it says the same.

What a section says and what DeepSpeed is told must not part: hardware is checked by `training.precision`, and
workers take their rows by `training.batch_size`.
"""

from __future__ import annotations

from typing import Any

from equipoise.config.training import TrainingConfig
from equipoise.errors import ConfigError
from equipoise.training.deepspeed_config import resolve_precision
from equipoise.training.workers import worker_range

_PRECISIONS = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "torch_autocast": None, "amp": None}
"""DeepSpeed's keys that turn a precision on, and the `training.precision` that is."""


def check_overrides(training: TrainingConfig) -> None:
    """Refuse overrides that contradict the section, before anything starts.

    Raises:
        ConfigError: names the overriding key, its value and what to set instead.
    """
    _check_precisions(training)
    _check_batch(training)


def _check_precisions(training: TrainingConfig) -> None:
    precision = resolve_precision(training)
    for key, named in _PRECISIONS.items():
        if key not in training.deepspeed:
            continue
        given = training.deepspeed[key]
        if not isinstance(given, dict):
            raise ConfigError(
                "DeepSpeed takes a mapping there",
                where=f"training.deepspeed.{key}",
                value=given,
                remedy="leave it out: training.precision turns a precision on",
            )
        enabled = given.get("enabled", named == precision)
        if enabled is not (named == precision):
            wanted = f"set training.precision to {named}" if named and enabled is True else "leave it out"
            raise ConfigError(
                f"contradicts training.precision, which is {training.precision}"
                + (f" and comes to {precision} here" if training.precision == "auto" else ""),
                where=f"training.deepspeed.{key}.enabled",
                value=enabled,
                remedy=f"{wanted}; training.precision alone says what weights are multiplied in",
            )


def _check_batch(training: TrainingConfig) -> None:
    low, high = worker_range(training)
    parts = training.deepspeed.get("gradient_accumulation_steps", training.gradient_accumulation)
    if not isinstance(parts, int) or isinstance(parts, bool) or parts < 1:
        raise ConfigError(
            "is no number of parts",
            where="training.deepspeed.gradient_accumulation_steps",
            value=parts,
            remedy="leave it out, and set training.gradient_accumulation",
        )
    whole = training.deepspeed.get("train_batch_size", training.batch_size)
    if whole != training.batch_size:
        raise _batch_fault("train_batch_size", whole, "training.batch_size is what workers share")
    rows = training.deepspeed.get("train_micro_batch_size_per_gpu")
    if rows is None or (low == high and rows * parts * high == training.batch_size):
        return
    shared = f"{high} workers" + (f" and {parts} parts" if parts > 1 else "")
    raise _batch_fault(
        "train_micro_batch_size_per_gpu",
        rows,
        f"training.batch_size of {training.batch_size} is shared by {shared}"
        if low == high
        else "it follows from training.batch_size and the number of workers, which may change",
    )


def _batch_fault(key: str, value: Any, why: str) -> ConfigError:
    return ConfigError(
        f"contradicts the batch: {why}",
        where=f"training.deepspeed.{key}",
        value=value,
        remedy="leave it out, and set training.batch_size to the rows of one step of all workers",
    )
