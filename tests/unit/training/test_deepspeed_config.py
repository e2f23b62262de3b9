from __future__ import annotations

import re

import pytest

from equipoise import hardware
from equipoise.config.training import TrainingConfig
from equipoise.errors import ConfigError
from equipoise.training.deepspeed_config import build_deepspeed_config, resolve_precision, resolve_workers


def test_the_generated_config_follows_the_section() -> None:
    training = TrainingConfig(
        batch_size=32,
        precision="bf16",
        zero_stage=2,
        weight_decay=0.1,
        gradient_clipping=0.5,
        warmup_share=0.2,
    )
    built = build_deepspeed_config(training, workers=4, total_steps=100, learning_rate=1e-3)
    assert built["train_micro_batch_size_per_gpu"] * 4 * built["gradient_accumulation_steps"] == 32
    assert built["bf16"] == {"enabled": True}
    assert built["zero_optimization"] == {"stage": 2}
    assert built["gradient_clipping"] == 0.5
    assert built["optimizer"]["params"]["lr"] == 1e-3
    assert built["optimizer"]["params"]["weight_decay"] == 0.1
    assert built["scheduler"]["params"]["warmup_num_steps"] == 20
    assert built["scheduler"]["params"]["total_num_steps"] == 100


def test_the_users_keys_win_and_leave_their_neighbours_alone() -> None:
    training = TrainingConfig(
        zero_stage=1,
        deepspeed={
            "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}},
            "optimizer": {"params": {"betas": [0.8, 0.9]}},
            "wall_clock_breakdown": True,
        },
    )
    built = build_deepspeed_config(training, workers=1, total_steps=10, learning_rate=1e-4)
    assert built["zero_optimization"] == {"stage": 3, "offload_param": {"device": "cpu"}}
    assert built["optimizer"]["type"] == "AdamW"
    assert built["optimizer"]["params"]["betas"] == [0.8, 0.9]
    assert built["optimizer"]["params"]["lr"] == 1e-4
    assert built["wall_clock_breakdown"] is True


@pytest.mark.parametrize(("batch_size", "workers"), [(64, 3), (2, 4), (7, 2)])
def test_a_batch_that_does_not_divide_is_refused_with_one_that_does(batch_size: int, workers: int) -> None:
    with pytest.raises(ConfigError) as caught:
        build_deepspeed_config(
            TrainingConfig(batch_size=batch_size), workers=workers, total_steps=1, learning_rate=1e-4
        )
    assert caught.value.where == "training.batch_size"
    assert caught.value.value == batch_size
    suggested = re.search(r"such as (\d+)", caught.value.remedy)
    assert suggested
    assert int(suggested[1]) % workers == 0


@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_the_schedule_stands_for_the_shortest_trainings_too(total_steps: int) -> None:
    schedule = build_deepspeed_config(
        TrainingConfig(), workers=1, total_steps=total_steps, learning_rate=1e-4
    )["scheduler"]["params"]
    assert schedule["total_num_steps"] > schedule["warmup_num_steps"] > 1


def test_a_precision_that_is_named_stands() -> None:
    assert resolve_precision(TrainingConfig(precision="fp32")) == "fp32"
    assert resolve_precision(TrainingConfig(precision="bf16")) == "bf16"


def test_auto_takes_what_the_machine_multiplies() -> None:
    machine = hardware.describe_hardware()
    native = bool({"amx_bf16", "avx512_bf16"} & set(machine["flags"]) or machine["gpus"])
    assert resolve_precision(TrainingConfig()) == ("bf16" if native else "fp32")
    assert resolve_workers(TrainingConfig()) == (len(machine["gpus"]) or machine["cores"])
    assert resolve_workers(TrainingConfig(workers=3)) == 3
