"""What the shipped GPU configs resolve to; nothing here has run on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from equipoise.config import RunConfig, load_config
from equipoise.training.deepspeed_config import build_deepspeed_config
from equipoise.training.feasibility import check_feasible
from equipoise.training.workers import resolve_workers, scaling_options


def resolve(repository: Path, name: str) -> tuple[RunConfig, dict[str, Any], dict[str, Any]]:
    config = load_config(repository / "jobs" / "configs" / f"{name}.yaml")
    training = config.training
    built = build_deepspeed_config(
        training,
        workers=resolve_workers(training),
        total_steps=1000,
        learning_rate=training.learning_rate,
    )
    return config, built, scaling_options(training)


def test_a_language_model_of_7b_is_sharded_whole(repository: Path) -> None:
    config, built, scaling = resolve(repository, "gpu-llm-zero3")
    assert config.training.gradient_checkpointing
    zero = built["zero_optimization"]
    assert zero == {"stage": 3, "overlap_comm": True, "contiguous_gradients": True}
    assert (built["train_micro_batch_size_per_gpu"], built["gradient_accumulation_steps"]) == (2, 4)
    assert built["bf16"]["enabled"]
    assert built["scheduler"]["type"] == "WarmupCosineLR"
    assert built["optimizer"]["params"]["torch_adam"] is True
    assert (scaling["num_workers"], scaling["use_gpu"]) == (8, True)
    assert scaling["resources_per_worker"] == {"CPU": 12, "GPU": 1}
    assert scaling["accelerator_type"] == "A100-80G"


def test_bert_large_takes_two_to_four_gpus(repository: Path) -> None:
    config, built, scaling = resolve(repository, "gpu-bert-large-zero2")
    assert built["zero_optimization"] == {"stage": 2}
    assert built["bf16"]["enabled"]
    assert (scaling["num_workers"], scaling["use_gpu"]) == ((2, 4), True)
    assert scaling["accelerator_type"] == "A10G"
    # Sixteen heads of 64 are BERT-large's.
    assert 1024 % config.distillation.relation_heads == 0


def test_vit_trains_in_fp16_with_a_loss_scale_that_adapts(repository: Path) -> None:
    config, built, scaling = resolve(repository, "gpu-vit")
    assert config.training.gradient_checkpointing
    assert built["zero_optimization"]["stage"] == 1
    assert built["fp16"] == {"enabled": True, "loss_scale": 0, "initial_scale_power": 16}
    assert built["bf16"] == {"enabled": False}
    assert (scaling["num_workers"], scaling["accelerator_type"]) == (4, "T4")


@pytest.mark.parametrize("name", ["gpu-llm-zero3", "gpu-bert-large-zero2", "gpu-vit"])
def test_a_cluster_is_needed_and_enough(repository: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_feasible(resolve(repository, name)[0].training)
