from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2LMHeadModel

from equipoise.config import RunConfig
from equipoise.errors import ConfigError, EquipoiseError, InputError, ModelError, RunFolderError, ServiceError
from equipoise.pipeline.preflight import check_port, check_run
from equipoise.ray_runtime import free_port
from equipoise.runs import RunFolder

Build = Callable[..., RunConfig]


def test_a_sound_run_is_told_in_sentences_and_nothing_is_written(
    run_config: Build, tiny_bert: Path, tmp_path: Path
) -> None:
    config = run_config(model={"teacher": str(tiny_bert)}, search={"depths": [1], "trials": 3})
    checked = check_run(config, RunFolder(tmp_path / "run"))
    assert checked.base == tiny_bert
    assert len(checked.data.test) == 60
    assert any(sentence.startswith("3 of 16 recipes will be measured") for sentence in checked.sentences)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"task": "mind_reading"}, "task"),
        ({"cost": {"node": "aws/none"}}, "cost.node"),
        ({"cost": {"training_node": "aws/none"}}, "cost.training_node"),
        ({"cost": {"replica_memory_gib": 4000}}, "cost.replica_memory_gib"),
        ({"training": {"workers": 2, "batch_size": 15}}, "training.batch_size"),
        (
            {"training": {"precision": "bf16", "deepspeed": {"fp16": {"enabled": True}}}},
            "training.deepspeed.fp16",
        ),
        ({"search": {"depths": [3]}}, "search.depths"),
        ({"model": {"teacher": "sample://nothing"}}, "sample://nothing"),
        ({"data": {"train": "absent.csv"}}, "absent.csv"),
        ({"distillation": {"generated_tokens": 8}}, "distillation.generated_tokens"),
    ],
)
def test_each_fault_is_found_before_anything_starts(
    run_config: Build, tiny_bert: Path, tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    base = {"model": {"teacher": str(tiny_bert)}, "search": {"depths": [1]}}
    with pytest.raises(EquipoiseError) as caught:
        check_run(run_config(**{**base, **changes}), RunFolder(tmp_path / "run"))
    assert caught.value.exit_status == 2
    assert where in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_in_an_object_store_is_refused(run_config: Build) -> None:
    with pytest.raises(RunFolderError, match="local run folder"):
        check_run(run_config(), RunFolder("s3://bucket/run"))


@pytest.mark.parametrize(
    ("config", "fault"),
    [({"model_type": "mobilenet_v2"}, ModelError), (None, InputError)],
    ids=["no depth", "not JSON"],
)
def test_a_model_config_that_cannot_be_used_is_the_users_fault(
    run_config: Build, tiny_bert: Path, tmp_path: Path, config: dict[str, Any] | None, fault: type[Exception]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "config.json").write_text("{" if config is None else json.dumps(config), encoding="utf-8")
    with pytest.raises(fault, match=r"config\.json"):
        check_run(run_config(model={"teacher": str(folder)}), RunFolder(tmp_path / "run"))


def test_a_port_in_use_is_found_before_hours_are_spent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError) as caught:
            check_port("127.0.0.1", port, "serving.port")
        assert caught.value.where == f"127.0.0.1:{port}"
        assert "serving.port" in caught.value.remedy
    check_port("127.0.0.1", free_port(), "serving.port")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ServiceError):
        check_port("192.0.2.1", free_port(), "serving.port")


def test_constraints_alone_do_not_matter_here(run_config: Build, tiny_bert: Path, tmp_path: Path) -> None:
    config = run_config(
        model={"teacher": str(tiny_bert)},
        search={"depths": [1]},
        constraints={"max_drop": 0, "p99_ms": 0.001},
    )
    assert check_run(config, RunFolder(tmp_path / "run")).sentences


def test_a_batch_is_checked_by_name(run_config: Build, tiny_bert: Path, tmp_path: Path) -> None:
    config = run_config(model={"teacher": str(tiny_bert)}, training={"workers": 2, "batch_size": 15})
    with pytest.raises(ConfigError, match="such as 16"):
        check_run(config, RunFolder(tmp_path / "run"))


def test_a_base_model_whose_weights_are_of_another_config_is_found_before_anything_starts(
    run_config: Build, tiny_classifier: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_classifier, base)
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"vocab_size": 99}))
    config = run_config(model={"teacher": str(base)}, search={"depths": [1]})
    with pytest.raises(ModelError, match=r"word_embeddings\.weight is 30522 x 32 in .* and 99 x 32 by"):
        check_run(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def prompt_rows(tmp_path: Path, intent_rows: Callable[[int, int], list[tuple[str, str]]]) -> dict[str, Any]:
    """The data section of a language model's run."""
    section = {"text_column": "say", "prompt_column": "ask"}
    for name, count, seed in (("train", 60, 1), ("test", 12, 2)):
        rows = [{"ask": text, "say": f" is about {topic}"} for text, topic in intent_rows(count, seed)]
        section[name] = str(tmp_path / f"{name}.jsonl")
        Path(section[name]).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return section


@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
def test_a_gpt2_can_start_with_students_of_fewer_layers(
    run_config: Build, tiny_gpt2: Path, tmp_path: Path, prompt_rows: dict[str, Any], shard_size: str
) -> None:
    teacher = tmp_path / "teacher"
    GPT2LMHeadModel.from_pretrained(tiny_gpt2).save_pretrained(teacher, max_shard_size=shard_size)
    shutil.copyfile(tiny_gpt2 / "tokenizer.json", teacher / "tokenizer.json")
    changes: dict[str, Any] = {
        "task": "text_generation",
        "data": prompt_rows,
        "model": {"teacher": str(teacher)},
        "search": {"depths": [1, 2], "layers": ["first"]},
        "constraints": {"max_drop": None, "max_relative_drop": 0.1},
    }
    run = RunFolder(tmp_path / "run")
    checked = check_run(run_config(**changes), run)
    assert any("recipes will be measured" in sentence for sentence in checked.sentences)
    with pytest.raises(ConfigError, match="the teacher has 3 layers"):
        check_run(run_config(**changes | {"search": {"depths": [4]}}), run)
    with pytest.raises(ConfigError, match="heads and neurons of a gpt2 are not known"):
        check_run(
            run_config(**changes | {"search": {"depths": [1], "ffn_shares": [0.5]}}),
            RunFolder(tmp_path / "run"),
        )
