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


def test_accumulation_splits_a_workers_share() -> None:
    training = TrainingConfig(batch_size=64, gradient_accumulation=4)
    built = build_deepspeed_config(training, workers=2, total_steps=10, learning_rate=1e-4)
    assert (built["train_micro_batch_size_per_gpu"], built["gradient_accumulation_steps"]) == (8, 4)
    with pytest.raises(ConfigError) as caught:
        build_deepspeed_config(training, workers=3, total_steps=10, learning_rate=1e-4)
    assert "multiple of 12, such as 72" in caught.value.remedy


def test_offload_and_fp16_are_deepspeeds() -> None:
    training = TrainingConfig(
        zero_stage=3, offload_optimizer=True, offload_parameters=True, precision="fp16", loss_scale=128
    )
    built = build_deepspeed_config(training, workers=1, total_steps=10, learning_rate=1e-4)
    assert built["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert built["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert built["fp16"] == {"enabled": True, "loss_scale": 128, "initial_scale_power": 16}
    assert built["bf16"] == {"enabled": False}


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [("linear", "WarmupDecayLR"), ("cosine", "WarmupCosineLR"), ("constant", "WarmupLR")],
)
def test_every_schedule_is_one_that_deepspeed_builds(schedule: str, kind: str) -> None:
    import torch
    from deepspeed.runtime import lr_schedules

    training = TrainingConfig.model_validate({"schedule": schedule, "warmup_share": 0.2})
    built = build_deepspeed_config(training, workers=1, total_steps=50, learning_rate=1e-3)["scheduler"]
    assert built["type"] == kind
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    rates = []
    made = getattr(lr_schedules, kind)(optimizer, **built["params"])
    for _ in range(50):
        made.step()
        rates.append(float(optimizer.param_groups[0]["lr"]))
    assert rates.index(max(rates)) in (9, 10)
    assert max(rates) == pytest.approx(1e-3, rel=0.01)
    assert rates[-1] == pytest.approx(1e-3) if schedule == "constant" else rates[-1] < 1e-4


def test_an_optimizer_of_another_type_replaces_the_generated_one() -> None:
    other = {"type": "SGD", "params": {"lr": 0.1}}
    training = TrainingConfig(deepspeed={"optimizer": other})
    built = build_deepspeed_config(training, workers=1, total_steps=10, learning_rate=1e-4)
    assert built["optimizer"] == other
    assert built["scheduler"]["type"] == "WarmupDecayLR"
