from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, ResNetConfig

from equipoise import hardware
from equipoise.config.training import TrainingConfig
from equipoise.errors import ConfigError
from equipoise.training.deepspeed_config import build_deepspeed_config
from equipoise.training.feasibility import check_feasible, check_recomputation
from equipoise.training.workers import scaling_options, worker_range, worker_resources


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """This machine's description, to be changed: 4 cores with bf16, no GPU."""
    described: dict[str, Any] = {
        **hardware.describe_hardware(),
        "cores": 4,
        "gpus": [],
        "flags": ["avx512_bf16"],
    }
    monkeypatch.setattr(hardware, "describe_hardware", lambda: described)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return described


@pytest.mark.parametrize(
    ("section", "where", "remedy"),
    [
        ({"precision": "fp16"}, "training.precision", "bf16 or fp32"),
        ({"loss_scale": 128.0}, "training.loss_scale", "fp16"),
        ({"zero_stage": 0, "offload_optimizer": True}, "training.offload_optimizer", "zero_stage 1, 2 or 3"),
        ({"zero_stage": 2, "offload_parameters": True}, "training.offload_parameters", "zero_stage 3"),
        ({"workers": 5}, "training.workers", "RAY_ADDRESS"),
        ({"workers": 2, "resources_per_worker": {"GPU": 1}}, "training.workers", "RAY_ADDRESS"),
        ({"workers": 3, "resources_per_worker": {"CPU": 2}}, "training.workers", "fewer workers"),
        ({"workers": "4..2"}, "training.workers", "2..4"),
        ({"workers": 4, "batch_size": 2}, "training.workers", "at most 2"),
    ],
)
@pytest.mark.usefixtures("machine")
def test_what_this_machine_cannot_do_is_refused(section: dict[str, Any], where: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_feasible(TrainingConfig.model_validate(section))
    assert caught.value.where == where
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("machine")
def test_what_it_can_do_passes() -> None:
    for section in (
        {},
        {"workers": "1..8"},
        {"precision": "bf16", "zero_stage": 3, "offload_parameters": True},
    ):
        check_feasible(TrainingConfig.model_validate(section))


def test_fp16_on_a_cpu_follows_its_instructions(machine: dict[str, Any]) -> None:
    machine["flags"] = ["avx512_fp16"]
    check_feasible(TrainingConfig(precision="fp16"))


@pytest.mark.usefixtures("machine")
def test_old_accelerators_have_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConfigError, match="V100 does not multiply bf16"):
        check_feasible(TrainingConfig(workers=64, accelerator_type="V100"))
    for training in (
        TrainingConfig(workers=64, accelerator_type="V100", precision="fp16"),
        TrainingConfig(workers=64, accelerator_type="A100-80G", precision="bf16"),
    ):
        check_feasible(training)


def test_offload_on_gpus_needs_a_compiler_or_torchs_adam(
    machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine["gpus"] = ["NVIDIA A100"]
    monkeypatch.setattr(hardware, "has_compiler", lambda: False)
    section: dict[str, Any] = {"zero_stage": 2, "offload_optimizer": True}
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler"):
        check_feasible(TrainingConfig(**section))
    check_feasible(TrainingConfig(**section, deepspeed={"optimizer": {"params": {"torch_adam": True}}}))
    monkeypatch.setattr(hardware, "has_compiler", lambda: True)
    check_feasible(TrainingConfig(**section))


@pytest.mark.usefixtures("machine")
def test_the_section_becomes_ray_trains_scaling() -> None:
    assert scaling_options(TrainingConfig()) == {
        "num_workers": 4,
        "use_gpu": False,
        "resources_per_worker": {"CPU": 1},
        "placement_strategy": "PACK",
        "accelerator_type": None,
    }
    wide = TrainingConfig(
        workers="2..8",
        accelerator_type="A100-80G",
        resources_per_worker={"CPU": 12},
        placement="SPREAD",
    )
    assert worker_range(wide) == (2, 8)
    found = scaling_options(wide)
    assert found["num_workers"] == (2, 8)
    assert (found["use_gpu"], found["resources_per_worker"]) == (True, {"CPU": 12, "GPU": 1})
    assert worker_resources(TrainingConfig(accelerator_type="T4", resources_per_worker={"GPU": 0})) == {
        "CPU": 1
    }


def test_ray_train_takes_the_scaling() -> None:
    from ray.train import ScalingConfig

    for section in ({"workers": "2..8"}, {"workers": 3, "resources_per_worker": {"CPU": 0.5}}):
        ScalingConfig(**scaling_options(TrainingConfig.model_validate(section)))


def test_an_elastic_group_needs_no_batch_that_divides() -> None:
    training = TrainingConfig(workers="2..5", batch_size=32)
    built = build_deepspeed_config(training, workers=5, total_steps=10, learning_rate=1e-4)
    assert built["train_micro_batch_size_per_gpu"] == 7


@pytest.mark.parametrize(
    ("section", "key", "remedy"),
    [
        (
            {"precision": "bf16", "deepspeed": {"fp16": {"enabled": True}}},
            "fp16.enabled",
            "precision to fp16",
        ),
        (
            {"precision": "fp32", "deepspeed": {"bf16": {"enabled": True}}},
            "bf16.enabled",
            "precision to bf16",
        ),
        ({"deepspeed": {"fp16": {"enabled": True}}}, "fp16.enabled", "precision to fp16"),
        ({"precision": "bf16", "deepspeed": {"bf16": {"enabled": False}}}, "bf16.enabled", "leave it out"),
        ({"precision": "fp32", "deepspeed": {"bfloat16": {"enabled": True}}}, "bfloat16.enabled", "to bf16"),
        (
            {"precision": "fp32", "deepspeed": {"torch_autocast": {"enabled": True}}},
            "torch_autocast.en",
            "leave",
        ),
        ({"precision": "bf16", "deepspeed": {"bf16": {"enabled": "auto"}}}, "bf16.enabled", "leave it out"),
        ({"precision": "bf16", "deepspeed": {"bf16": True}}, "bf16", "leave it out"),
        (
            {"deepspeed": {"train_micro_batch_size_per_gpu": 4}},
            "train_micro_batch_size_per_gpu",
            "batch_size to",
        ),
        ({"deepspeed": {"train_micro_batch_size_per_gpu": "auto"}}, "train_micro_batch", "leave it out"),
        (
            {"workers": "2..4", "deepspeed": {"train_micro_batch_size_per_gpu": 8}},
            "train_micro_batch_size_per_gpu",
            "leave it out",
        ),
        ({"deepspeed": {"train_batch_size": 64}}, "train_batch_size", "training.batch_size"),
        (
            {"deepspeed": {"gradient_accumulation_steps": "auto"}},
            "gradient_accumulation_steps",
            "leave it out",
        ),
    ],
)
@pytest.mark.usefixtures("machine")
def test_overrides_that_contradict_the_section_are_refused(
    section: dict[str, Any], key: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_feasible(TrainingConfig.model_validate({"workers": 2, "batch_size": 32, **section}))
    assert caught.value.where.startswith(f"training.deepspeed.{key}")
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("machine")
def test_overrides_that_agree_with_the_section_pass() -> None:
    for section in (
        {"precision": "bf16", "deepspeed": {"bf16": {"enabled": True, "immediate_grad_update": False}}},
        {"precision": "bf16", "deepspeed": {"fp16": {"enabled": False}}},
        {"precision": "fp32", "deepspeed": {"zero_optimization": {"overlap_comm": True}}},
        {"deepspeed": {"train_micro_batch_size_per_gpu": 16, "train_batch_size": 32}},
        {"deepspeed": {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 4}},
    ):
        check_feasible(TrainingConfig.model_validate({"workers": 2, "batch_size": 32, **section}))


@pytest.mark.usefixtures("machine")
def test_offload_is_held_against_the_stage_that_deepspeed_is_told() -> None:
    section = {"zero_stage": 3, "offload_parameters": True}
    with pytest.raises(ConfigError, match="ZeRO stage 2 keeps whole parameters"):
        check_feasible(
            TrainingConfig.model_validate({**section, "deepspeed": {"zero_optimization": {"stage": 2}}})
        )


def test_an_override_turns_no_second_precision_on() -> None:
    """A training for int8 is in fp32, whatever the run's own precision and its overrides are."""
    overrides = {"bf16": {"enabled": True, "immediate_grad_update": False}}
    training = TrainingConfig(precision="bf16", deepspeed=overrides)
    for precision in ("bf16", "fp32"):
        changed = training.model_copy(update={"precision": precision})
        built = build_deepspeed_config(changed, workers=1, total_steps=10, learning_rate=1e-4)
        assert built["bf16"] == {"enabled": precision == "bf16", "immediate_grad_update": False}
        assert "fp16" not in built


def test_a_model_that_cannot_recompute_is_refused(tmp_path: Path) -> None:
    resnet, bert = tmp_path / "resnet", tmp_path / "bert"
    ResNetConfig().save_pretrained(resnet)
    BertConfig(num_hidden_layers=1).save_pretrained(bert)
    asked = TrainingConfig(gradient_checkpointing=True)

    check_recomputation(asked, bert, "AutoModelForSequenceClassification")
    check_recomputation(TrainingConfig(), resnet, "AutoModelForImageClassification")
    with pytest.raises(ConfigError, match="a resnet cannot compute its activations again") as caught:
        check_recomputation(asked, resnet, "AutoModelForImageClassification")
    assert caught.value.where == "training.gradient_checkpointing"
