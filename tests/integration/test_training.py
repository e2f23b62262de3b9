"""Fine-tuning and distillation on Ray Train and DeepSpeed, with a tiny BERT."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from equipoise.compression.structure import read_layers
from equipoise.config import RunConfig
from equipoise.config.model import ModelConfig
from equipoise.engines import Predictor, open_engine
from equipoise.errors import TrainingDivergedError
from equipoise.tasks import find_task
from equipoise.tasks.text_classification import TextClassification
from equipoise.training.encoding import encode_examples
from equipoise.training.examples import Examples
from equipoise.training.finetune import distill_student, finetune_teacher
from equipoise.training.teacher_outputs import teacher_answers

# Warnings of other packages about each other, at their own import.
pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.timeout(300),
]

LABELS = ("billing", "delivery", "travel")
Config = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def task(tiny_bert: Path) -> TextClassification:
    found = find_task("text_classification").create(
        tiny_bert, LABELS, ModelConfig(teacher=str(tiny_bert), max_length=32)
    )
    assert isinstance(found, TextClassification)
    return found


@pytest.fixture(scope="module")
def rows(intent_rows: Callable[[int, int], list[tuple[str, str]]]) -> tuple[list[str], list[str]]:
    texts, labels = zip(*intent_rows(96, 1), strict=True)
    return list(texts), list(labels)


@pytest.fixture(scope="module")
def examples(task: TextClassification, rows: tuple[list[str], list[str]]) -> Examples:
    return encode_examples(task, *rows)


@pytest.fixture
def config(run_config: Config) -> Config:
    def build(**training: Any) -> RunConfig:
        options = {
            "workers": 1,
            "precision": "fp32",
            "epochs": 8,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "zero_stage": 0,
        }
        return run_config(training={**options, **training})

    return build


def finetuned(config: RunConfig, base: Path, examples: Examples, folder: Path) -> dict[str, Any]:
    return finetune_teacher(config, base, examples, len(LABELS), folder / "teacher", folder / "scratch")


def accuracy(folder: Path, task: TextClassification, rows: tuple[list[str], list[str]]) -> float:
    logits = Predictor(task, open_engine("torch", folder, "fp32")).answers(rows[0]).logits
    found = [LABELS[index] for index in logits.argmax(axis=1)]
    return float(np.mean([a == b for a, b in zip(found, rows[1], strict=True)]))


def test_two_workers_learn_and_write_a_model_folder(
    config: Config,
    tiny_bert: Path,
    examples: Examples,
    task: TextClassification,
    rows: tuple[list[str], list[str]],
    tmp_path: Path,
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    figures = finetuned(config(workers=2, epochs=12, zero_stage=1), tiny_bert, examples, tmp_path)
    # Without training, three labels cost log 3 = 1.1.
    assert figures["loss"] < 0.7
    assert figures["rows_per_s"] > 0
    # Over the last ten steps; chance is a third.
    assert 0.6 < figures["train_accuracy"] <= 1
    folder = tmp_path / "teacher"
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "deepspeed.json"}
    assert (
        json.loads((folder / "deepspeed.json").read_text(encoding="utf-8"))["train_micro_batch_size_per_gpu"]
        == 8
    )
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.float32}
    # Chance is a third; the tiny model may still mix two of the labels up.
    assert accuracy(folder, task, rows) > 0.6
    assert list((tmp_path / "scratch").iterdir()) == []
    # Ray Train would keep Ctrl-C for itself.
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    "setups",
    [
        # (workers, ZeRO stage); test_training_loop.py has them in one process, without Ray.
        pytest.param([(1, 0), (2, 3)], id="one-and-two-workers"),
        pytest.param([(2, 0), (2, 1), (2, 2), (1, 3)], id="every-stage"),
    ],
)
@pytest.mark.slow
def test_workers_and_zero_stages_come_to_the_same_loss_and_weights(
    config: Config, tiny_bert: Path, examples: Examples, tmp_path: Path, setups: list[tuple[int, int]]
) -> None:
    # Dropout draws differently in each worker.
    base = without_dropout(tiny_bert, tmp_path / "base")
    losses, weights = [], []
    for workers, stage in setups:
        folder = tmp_path / f"{workers}-{stage}"
        trained = config(workers=workers, epochs=2, zero_stage=stage)
        losses.append(finetuned(trained, base, examples, folder)["loss"])
        weights.append(load_file(folder / "teacher" / "model.safetensors"))
    # What is reported is the loss of rank 0's rows, of two workers one half.
    assert max(losses) - min(losses) < (0.1 if len({workers for workers, _ in setups}) > 1 else 1e-3)
    first, *others = weights
    for other in others:
        assert other.keys() == first.keys()
        for name, value in other.items():
            torch.testing.assert_close(value, first[name], atol=2e-3, rtol=0)


@pytest.mark.slow
def test_bf16_learns_too_and_writes_fp32(
    config: Config,
    tiny_bert: Path,
    examples: Examples,
    task: TextClassification,
    rows: tuple[list[str], list[str]],
    tmp_path: Path,
) -> None:
    finetuned(config(workers=2, epochs=12, zero_stage=2, precision="bf16"), tiny_bert, examples, tmp_path)
    weights = load_file(tmp_path / "teacher" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    # One answer for all would be right in a third of the rows.
    assert accuracy(tmp_path / "teacher", task, rows) > 0.6


def without_dropout(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    values |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (target / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return target


def test_frozen_embeddings_stay_as_they_were(
    config: Config, tiny_bert: Path, examples: Examples, tmp_path: Path
) -> None:
    finetuned(config(epochs=2, freeze_embeddings=True, zero_stage=1), tiny_bert, examples, tmp_path)
    before = load_file(tiny_bert / "model.safetensors")
    after = load_file(tmp_path / "teacher" / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(after[f"bert.{name}"], before[name])
    dense = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(after[f"bert.{dense}"], before[dense])


def test_a_student_learns_from_the_teachers_logits_and_not_the_labels(
    config: Config,
    tiny_classifier: Path,
    task: TextClassification,
    rows: tuple[list[str], list[str]],
    tmp_path: Path,
) -> None:
    """The teacher is untrained: what it answers has nothing to do with the labels."""
    teacher = tmp_path / "teacher"
    without_dropout(tiny_classifier, teacher)
    logits = teacher_answers(teacher, task, rows[0], tmp_path / "cache").logits
    told = logits.argmax(axis=1)
    examples = replace(encode_examples(task, *rows), teacher_logits=logits)
    base = config(batch_size=16)
    settings = {"epochs": 30.0, "learning_rate": 3e-3, "soft_share": 1.0, "temperature": 2.0}
    distilled = base.model_copy(update={"distillation": base.distillation.model_copy(update=settings)})
    figures = distill_student(distilled, teacher, (0,), examples, tmp_path / "student", tmp_path / "scratch")
    assert figures["loss"] < 0.5
    assert read_layers(tmp_path / "student")[0] == 1
    found = Predictor(task, open_engine("torch", tmp_path / "student", "fp32")).answers(rows[0]).logits
    assert (found.argmax(axis=1) == told).mean() > 0.9
    assert np.mean([LABELS[i] == label for i, label in zip(found.argmax(axis=1), rows[1], strict=True)]) < 0.7


def test_teacher_outputs_are_the_teachers_and_cached(
    tiny_classifier: Path, task: TextClassification, rows: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    logits = teacher_answers(tiny_classifier, task, rows[0], tmp_path).logits
    expected = Predictor(task, open_engine("torch", tiny_classifier, "fp32")).answers(rows[0]).logits
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    (cached,) = tmp_path.iterdir()
    written = cached.stat().st_mtime_ns
    assert np.array_equal(teacher_answers(tiny_classifier, task, rows[0], tmp_path).logits, logits)
    assert cached.stat().st_mtime_ns == written
    teacher_answers(tiny_classifier, task, rows[0][:-1], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_loss_that_is_not_finite_stops_with_step_and_rate(
    config: Config, tiny_bert: Path, examples: Examples, tmp_path: Path
) -> None:
    """One weight is infinite, as in a damaged checkpoint: the first loss is NaN."""
    base = without_dropout(tiny_bert, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"][0, 0] = float("inf")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingDivergedError) as caught:
        finetuned(config(epochs=1), base, examples, tmp_path)
    message = str(caught.value)
    assert caught.value.exit_status == 2
    assert caught.value.where == "fine-tuning the teacher"
    assert "not finite at step 0" in message
    assert "learning rate" in message
    assert "training.learning_rate" in caught.value.remedy
    assert "\n" not in message
    # What it was to be trained by is there to be looked at, and nothing that could be taken for a model.
    assert [path.name for path in (tmp_path / "teacher").iterdir()] == ["deepspeed.json"]
    assert list((tmp_path / "scratch").iterdir()) == []
