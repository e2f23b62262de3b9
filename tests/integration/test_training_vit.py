"""A tiny ViT is trained, distilled to fewer layers with guidance, and exported to every engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from equipoise.compression.export import export_model
from equipoise.compression.structure import read_layers
from equipoise.config import RunConfig
from equipoise.config.model import ModelConfig
from equipoise.engines import Predictor, open_engine
from equipoise.tasks.image_classification import ImageClassification
from equipoise.training.encoding import encode_examples
from equipoise.training.finetune import distill_student, finetune_teacher
from equipoise.training.state_cache import add_states
from equipoise.training.teacher_outputs import teacher_answers

# Warnings of other packages about each other, at their own import.
pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.timeout(900),
]

LABELS = ("top", "middle", "bottom")


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained ViT of another number of classes: 3 layers, hidden size 32, 16 patches."""
    folder = tmp_path_factory.mktemp("tiny_vit")
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=4,
        num_labels=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTForImageClassification(config).save_pretrained(folder)
    return folder


def draw_images(count: int, seed: int) -> tuple[list[Any], list[str]]:
    """Images told apart by the rows that are bright."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 60, (count, 16, 16, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        image[5 * (number % 3) : 5 * (number % 3) + 4] += 180
    return list(images), [LABELS[number % 3] for number in range(count)]


def test_a_vit_is_trained_distilled_and_exported(
    run_config: Callable[..., RunConfig], tiny_vit: Path, tmp_path: Path
) -> None:
    task = ImageClassification.create(tiny_vit, LABELS, ModelConfig(teacher=str(tiny_vit)))
    images, labels = draw_images(96, 1)
    examples = encode_examples(task, images, labels)
    config = run_config(
        task="image_classification",
        data={"deduplicate": False},
        training={
            "workers": 1,
            "precision": "fp32",
            "epochs": 8,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "zero_stage": 1,
        },
        distillation={
            "epochs": 6,
            "learning_rate": 3e-3,
            "hidden_weight": 0.1,
            "relation_weight": 1,
            "relation_heads": 2,
            "layer_map": "uniform",
        },
    )
    teacher, student, scratch = (tmp_path / name for name in ("teacher", "student", "scratch"))
    finetune_teacher(config, tiny_vit, examples, len(LABELS), teacher, scratch)
    task.save(teacher)
    told = teacher_answers(teacher, task, images, tmp_path / "cache")
    lessons = replace(examples, teacher_logits=told.logits)
    lessons = add_states(config, teacher, (0, 2), lessons, tmp_path / "states")
    assert lessons.teacher_states is not None
    distill_student(config, teacher, (0, 2), lessons, student, scratch)
    assert (read_layers(teacher)[0], read_layers(student)[0]) == (3, 2)

    others, truth = draw_images(30, 2)
    answers = {}
    for engine, precision in (("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "int8")):
        target = tmp_path / engine
        target.mkdir()
        calibration = [task.encode(images[start : start + 16]) for start in range(0, 96, 16)]
        export_model(
            student,
            target,
            engine=engine,
            precision=precision,
            task=task,
            calibration=calibration,
            onnx_cache=tmp_path / "onnx",
        )
        answers[engine] = Predictor(task, open_engine(engine, target, precision)).answers(others).logits
    for engine, logits in answers.items():
        right = np.mean(
            [LABELS[place] == label for place, label in zip(logits.argmax(1), truth, strict=True)]
        )
        # Chance is a third.
        assert right > 0.9, engine
    np.testing.assert_allclose(answers["onnxruntime"], answers["torch"], atol=1e-3)
    assert not np.allclose(answers["openvino"], answers["torch"], atol=1e-3)
