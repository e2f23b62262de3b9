"""The loop over ZeRO stages, precisions and numbers of workers: they agree, and go on after a stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from equipoise.ray_runtime import free_port
from equipoise.training.examples import Examples, take_batch
from equipoise.training.guidance import Guidance
from equipoise.training.guide import Guide

pytestmark = pytest.mark.timeout(300)

WORKER = Path(__file__).with_name("loop_worker.py")
EVERY = {"checkpoint_every_steps": 5}
STAGES = [{"zero_stage": stage} for stage in range(4)]
OTHERS = [
    *({"zero_stage": stage, "precision": "bf16"} for stage in range(4)),
    {"zero_stage": 1, "gradient_accumulation": 2, "schedule": "cosine"},
    {"zero_stage": 2, "offload_optimizer": True, "schedule": "constant"},
    {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True},
    {"zero_stage": 3, "gradient_checkpointing": True, "freeze_embeddings": True},
]

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers, with dropout."""
    return save_bert(tmp_path_factory.mktemp("model"))


def save_bert(folder: Path, **changes: Any) -> Path:
    """A BERT of two layers and three labels, its weights drawn by one seed."""
    options = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(vocab_size=100, num_labels=3, **options, **changes)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(model: Path) -> Run:
    """`run(folder, [{...}, ...], workers=2)`: what each training of a plan came to."""

    def start(folder: Path, plan: list[dict[str, Any]], workers: int = 2) -> list[dict[str, Any]]:
        folder.mkdir(parents=True, exist_ok=True)
        for training in plan:
            training.setdefault("model", str(model))
            Path(training["folder"]).mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(workers)}
        ranks = [
            subprocess.Popen(
                [sys.executable, str(WORKER), str(folder / "plan.json")],
                env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(workers)
        ]
        try:
            told = [process.communicate(timeout=240) for process in ranks]
        finally:
            for process in ranks:
                process.kill()
        assert [process.returncode for process in ranks] == [0] * workers, told[0][1][-3000:]
        return [json.loads(line) for line in told[0][0].splitlines() if line.startswith('{"started"')]

    return start


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_every_zero_stage_gives_the_same_loss_curve_and_weights(run: Run, tmp_path: Path) -> None:
    plan = [{"folder": str(tmp_path / str(i)), "section": section} for i, section in enumerate(STAGES)]
    first, *others = run(tmp_path, plan)
    assert len(set(first["losses"])) == len(first["losses"]) == 10
    for number, found in enumerate(others, 1):
        assert found["losses"] == pytest.approx(first["losses"], abs=1e-5)
        assert distance(weights(tmp_path / "0"), weights(tmp_path / str(number))) < 1e-4


def test_a_row_that_two_workers_see_is_right_once(run: Run, tmp_path: Path) -> None:
    """One batch of each epoch is one row: the worker without any takes it too, at weight 0."""
    [found] = run(tmp_path, [{"folder": str(tmp_path / "ragged"), "section": {}, "rows": 17}])
    # Of the last ten steps; a row alone that is right is all of its batch.
    assert len(found["right"]) == 10
    assert max(found["right"]) == 1.0


def test_parts_and_recomputation_change_nothing(run: Run, tmp_path: Path) -> None:
    """Without dropout, which draws by part, accumulation over parts is the same step."""
    sections = [
        {},
        {"gradient_accumulation": 4},
        {"gradient_checkpointing": True},
        {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True},
    ]
    base = tmp_path / "base"
    base.mkdir()
    plan = [{"folder": str(tmp_path / str(i)), "section": section} for i, section in enumerate(sections)]
    for training in plan:
        training["model"] = str(without_dropout(Path(training["folder"])))
    first, *others = run(tmp_path, plan)
    for number, found in enumerate(others, 1):
        assert found["losses"] == pytest.approx(first["losses"], abs=1e-4)
        assert distance(weights(tmp_path / "0"), weights(tmp_path / str(number))) < 1e-3


def without_dropout(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=100,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            num_labels=3,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        BertForSequenceClassification(config).save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.parametrize("sections", [STAGES, OTHERS], ids=["stages", "others"])
def test_a_training_that_goes_on_equals_one_that_was_never_stopped(
    run: Run, tmp_path: Path, sections: list[dict[str, Any]]
) -> None:
    plan = []
    for number, section in enumerate(sections):
        whole, halved = (str(tmp_path / f"{number}-{name}") for name in ("whole", "halved"))
        plan.append({"folder": whole, "section": section})
        plan.append({"folder": halved, "section": section | EVERY, "stop": 7})
        plan.append({"folder": halved, "section": section | EVERY})
    found = run(tmp_path, plan)
    for number, section in enumerate(sections):
        whole, stopped, resumed = found[3 * number : 3 * number + 3]
        assert (stopped["started"], stopped["step"]) == (0, 7)
        # Two steps are done again: the checkpoint is of step 5.
        assert (resumed["started"], resumed["step"]) == (5, 12)
        assert resumed["losses"] == pytest.approx(whole["losses"], abs=1e-6), section
        assert resumed["right"] == pytest.approx(whole["right"]), section
        assert resumed["rate"] == pytest.approx(whole["rate"])
        parts = (weights(tmp_path / f"{number}-{name}") for name in ("whole", "halved"))
        assert distance(*parts) < 1e-6, section


def test_another_number_of_workers_and_another_stage_can_go_on(run: Run, tmp_path: Path) -> None:
    """What an elastic group does when a node is lost; the global batches stay the same."""
    model = without_dropout(tmp_path)
    whole = {"folder": str(tmp_path / "whole"), "section": {"zero_stage": 1}, "model": str(model)}
    halved = {"folder": str(tmp_path / "halved"), "model": str(model)}
    run(tmp_path, [whole, {**halved, "section": {"zero_stage": 3} | EVERY, "stop": 7}], workers=2)
    (found,) = run(tmp_path, [{**halved, "section": {"zero_stage": 1} | EVERY}], workers=1)
    assert (found["started"], found["step"]) == (5, 12)
    assert distance(weights(tmp_path / "whole"), weights(tmp_path / "halved")) < 1e-3


def test_a_loss_that_is_not_finite_names_step_rows_and_rate(run: Run, model: Path, tmp_path: Path) -> None:
    base = tmp_path / "model"
    base.mkdir()
    for file in model.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    damaged = load_file(base / "model.safetensors")
    # First met in the fifth batch.
    damaged["bert.embeddings.word_embeddings.weight"][85, 0] = float("inf")
    save_file(damaged, base / "model.safetensors", metadata={"format": "pt"})
    (found,) = run(tmp_path, [{"folder": str(tmp_path / "run"), "section": {}, "model": str(base)}])
    kind, message = found["fault"]
    assert kind == "TrainingDivergedError"
    assert "not finite at step 4: rows " in message
    named = message.partition("rows ")[2].partition(", learning rate")[0].split(", ")
    assert len({int(row) for row in named}) == 8
    assert "\n" not in message
    # Two steps warm up, of twelve: the fifth is taken at nine tenths.
    rate = float(message.partition("learning rate ")[2].partition(";")[0])
    assert rate == pytest.approx(0.9 * 3e-3)


def test_a_full_disk_stops_every_rank_and_leaves_the_older_checkpoint_whole(run: Run, tmp_path: Path) -> None:
    """The writer may write no file as large as the weights, after a first checkpoint."""
    folder = tmp_path / "run"
    first = {"folder": str(folder), "section": EVERY, "stop": 7}
    full = {"folder": str(folder), "section": {"checkpoint_every_steps": 3}, "file_limit": 20_000}
    on = {"folder": str(folder), "section": EVERY}
    _, stopped, resumed = run(tmp_path, [first, full, on])
    assert stopped["started"] == 5
    assert stopped["fault"][0] == "StorageError"
    assert "the disk is full" in stopped["fault"][1]
    assert stopped["step"] == 6
    # Nothing half-written took the place of the older one, and it is good to go on from.
    assert (resumed["started"], resumed["step"], resumed["fault"]) == (5, 12, None)
    assert not list((folder / "checkpoints").glob(".tmp-*"))


@pytest.mark.parametrize("weight", ["hidden_weight", "relation_weight"])
def test_guidance_brings_a_student_closer_to_its_teachers_inside(
    run: Run, tmp_path: Path, weight: str
) -> None:
    """The student starts from the teacher's first layer and is held to its last, by two workers."""
    teacher = save_bert(tmp_path / "teacher", initializer_range=0.3)
    strengths = (0.0, 10.0)
    plan = [
        {
            "folder": str(tmp_path / f"{strength:g}"),
            "model": str(teacher),
            "section": {"freeze_embeddings": False},
            "steps": 60,
            "layers": [0],
            "guidance": {"pairs": [(0, 1)], "relation_heads": 2, weight: strength} if strength else None,
        }
        for strength in strengths
    ]
    run(tmp_path, plan)
    rows = drawn_rows(40)
    apart = []
    for strength in strengths:
        folders = (tmp_path / f"{strength:g}" / "student", teacher)
        student, whole = (BertForSequenceClassification.from_pretrained(folder).eval() for folder in folders)
        assert (student.config.num_hidden_layers, whole.config.num_hidden_layers) == (1, 2)
        guide = Guide(Guidance("", ((0, 1),), relation_heads=2, **{weight: 1.0}), student, whole)
        batch = take_batch(rows, np.arange(40), "cpu")
        with torch.inference_mode():
            outputs = student(**batch.inputs, **guide.options)
            apart.append(float(guide.loss(batch.inputs, outputs, batch.mask)))
    assert apart[1] < 0.7 * apart[0], apart


def drawn_rows(count: int) -> Examples:
    """Rows of the kind that the workers train on."""
    draw = np.random.default_rng(9)
    lengths = draw.integers(4, 13, count)
    mask = (np.arange(12) < lengths[:, None]).astype(np.int64)
    ids = draw.integers(1, 100, (count, 12)) * mask
    return Examples({"input_ids": ids, "attention_mask": mask}, np.zeros(count, np.int64), lengths)
