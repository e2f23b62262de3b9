"""How many workers train, and on what: from the config to Ray Train's terms."""

from __future__ import annotations

from typing import Any

from equipoise import hardware
from equipoise.config.training import TrainingConfig


def worker_range(training: TrainingConfig) -> tuple[int, int]:
    """Least and most workers; equal unless the config names a range. auto is one a GPU, or one a core."""
    if training.workers == "auto":
        machine = hardware.describe_hardware()
        count = len(machine["gpus"]) or machine["cores"]
        return count, count
    if isinstance(training.workers, str):
        low, _, high = training.workers.partition("..")
        return int(low), int(high)
    return training.workers, training.workers


def resolve_workers(training: TrainingConfig) -> int:
    """Number of workers, the most of them where the config names a range."""
    return worker_range(training)[1]


def worker_resources(training: TrainingConfig) -> dict[str, float]:
    """Ray resources of each worker, `CPU` and, where it trains on one, `GPU` among them."""
    found: dict[str, float] = {"CPU": 1}
    if training.accelerator_type or hardware.describe_hardware()["gpus"]:
        found["GPU"] = 1
    found |= training.resources_per_worker
    return {name: amount for name, amount in found.items() if amount}


def trains_on_gpus(training: TrainingConfig) -> bool:
    """Whether workers reserve a GPU, on this machine or another."""
    return worker_resources(training).get("GPU", 0) > 0


def scaling_options(training: TrainingConfig) -> dict[str, Any]:
    """Arguments of `ray.train.ScalingConfig`; a pair of workers makes the group elastic."""
    low, high = worker_range(training)
    return {
        "num_workers": high if low == high else (low, high),
        "use_gpu": trains_on_gpus(training),
        "resources_per_worker": worker_resources(training),
        "placement_strategy": training.placement,
        "accelerator_type": training.accelerator_type,
    }
