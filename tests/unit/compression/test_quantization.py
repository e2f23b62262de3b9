from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from equipoise.compression.export import export_model
from equipoise.engines import open_engine
from equipoise.engines.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteForImageClassification
from equipoise.tasks.image_classification import ImageClassification


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An EfficientNet-lite most of whose sums lie far outside of what ReLU6 lets through."""
    config = EfficientNetLiteConfig(
        num_channels=1,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 2],
        kernel_sizes=[3, 3],
        strides=[1, 2],
        expand_ratios=[1, 6],
        pooled_size=32,
        num_labels=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = EfficientNetLiteForImageClassification(config)
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d) and "projection" not in name:
                nn.init.constant_(module.weight, 20.0)
        nn.init.normal_(model.classifier.weight, std=0.3)
    model.save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def test_activations_are_in_the_range_of_the_convolution_before_them(source: Path, tmp_path: Path) -> None:
    task = ImageClassification(("a", "b", "c"), 16, 1, [0.5], [0.25])
    pixels = np.random.default_rng(0).integers(0, 256, (96, 16, 16), dtype=np.uint8)
    batches = [task.encode(list(pixels[start : start + 16])) for start in range(0, 96, 16)]
    target = tmp_path / "int8"
    target.mkdir()
    export_model(
        source,
        target,
        engine="onnxruntime",
        precision="int8",
        task=task,
        calibration=batches,
        onnx_cache=tmp_path / "onnx",
    )
    graph = onnx.load(str(target / "model.onnx")).graph
    made = {output: node for node in graph.node for output in node.output}
    scales = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    after = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in made]
    bounded = [node for node in after if made[node.input[0]].op_type == "Conv"]
    assert "Clip" not in {node.op_type for node in graph.node}
    # Of what ReLU6 follows, 256 steps reach from 0 to 6; of projections they reach as far as the data does.
    assert sum(float(scales[node.input[1]]) <= 6 / 255 + 1e-6 for node in bounded) >= 6
    whole = open_engine("torch", source, "fp32").run(batches[0])["logits"]
    small = open_engine("onnxruntime", target, "int8").run(batches[0])["logits"]
    assert np.abs(whole - small).max() < 0.1 * np.ptp(whole)
