"""int8_guarded of what is no text classifier: a convolutional network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from equipoise.compression.accuracy_guard import Guard
from equipoise.compression.export import export_model
from equipoise.engines import Predictor, open_engine
from equipoise.tasks import IGNORED, Task
from equipoise.tasks.image_classification import ImageClassification

# nncf's accuracy control compiles the model once for each operation that it ranks.
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Rows:
    """A model folder, its task, and inputs with what the model says of them in fp32."""

    source: Path
    task: Task
    inputs: Sequence[Any]
    labels: Sequence[Any]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """An EfficientNet-lite of random weights on noise, told six labels."""
    from equipoise.engines.efficientnet_lite import (
        EfficientNetLiteConfig,
        EfficientNetLiteForImageClassification,
    )

    folder = tmp_path_factory.mktemp("source") / "model"
    config = EfficientNetLiteConfig(
        num_channels=1,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 2],
        kernel_sizes=[3, 3],
        strides=[1, 2],
        expand_ratios=[1, 6],
        pooled_size=32,
        num_labels=6,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = EfficientNetLiteForImageClassification(config)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.3, 2.0)
                nn.init.normal_(module.bias, std=0.5)
        nn.init.normal_(model.classifier.weight, std=0.5)
    model.save_pretrained(folder)
    task = ImageClassification([f"label-{place}" for place in range(6)], 16, 1, [0.5], [0.25])
    pixels = np.random.default_rng(0)
    images = [pixels.integers(0, 256, (16, 16), dtype=np.uint8) for _ in range(200)]
    said = Predictor(task, open_engine("torch", folder, "fp32")).answers(images).predicted
    return Rows(folder, task, images, [task.labels[place] for place in said])


@pytest.fixture(scope="module")
def export(
    rows: Rows, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[tuple[str, ...], float]]:
    """`export(precision, **guard)`: what was spared, and the loss of the task's metric on the rows."""
    task = rows.task

    def build(precision: str, **settings: Any) -> tuple[tuple[str, ...], float]:
        target = tmp_path_factory.mktemp(precision)
        batches = [task.encode(rows.inputs[start : start + 16]) for start in range(0, 96, 16)]
        spared = export_model(
            rows.source,
            target,
            engine="openvino",
            precision=precision,
            task=task,
            calibration=[{name: batch[name] for name in task.inputs} for batch in batches],
            onnx_cache=rows.source / "onnx",
            guard=Guard(task, rows.inputs, rows.labels, **settings) if settings else None,
        )
        answers = Predictor(task, open_engine("openvino", target, precision)).answers(rows.inputs)
        arrays = task.encode(rows.inputs)
        truth = task.targets(arrays, rows.labels)
        counts = task.tally(answers, truth[truth != IGNORED], len(rows.inputs))
        return spared, 1 - float(task.metric(counts.sum(axis=0)))

    return build


def test_where_int8_loses_no_more_than_allowed_it_is_plain_int8(
    export: Callable[..., tuple[tuple[str, ...], float]],
) -> None:
    assert export("int8_guarded", max_drop=0.9, time_limit_s=1) == export("int8")
