from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification

from equipoise.compression.channel_widths import read_channels
from equipoise.compression.channels import ChannelScores, find_groups, keep_channels, score_channels
from equipoise.compression.importance import most_important
from equipoise.engines import open_engine
from equipoise.engines.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteForImageClassification
from equipoise.errors import ModelError
from equipoise.training.examples import Examples
from equipoise.training.initialization import load_initial_model, save_model
from equipoise.training.residual_blocks import keep_blocks

IMAGES = "AutoModelForImageClassification"
PIXELS = np.random.default_rng(0).normal(size=(12, 3, 32, 32)).astype(np.float32)
EXAMPLES = Examples({"pixel_values": PIXELS}, np.arange(12) % 3, np.ones(12, dtype=np.int64), ragged=False)


def basic() -> Any:
    """Its stem and first stage are one group: the first shortcut is the identity."""
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 24], depths=[2, 2], layer_type="basic", num_labels=3
        )
    )


def bottleneck() -> Any:
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[2, 1], num_labels=3)
    )


def lite() -> Any:
    """EfficientNet-lite with a stage without expansion and one whose size stays."""
    return EfficientNetLiteForImageClassification(
        EfficientNetLiteConfig(
            embedding_size=16,
            hidden_sizes=[8, 16, 24],
            depths=[1, 2, 1],
            kernel_sizes=[3, 3, 5],
            strides=[1, 2, 1],
            expand_ratios=[1, 6, 6],
            pooled_size=32,
            num_labels=3,
        )
    )


BUILDS = {
    "basic": (basic, (8, 8, 16)),
    "bottleneck": (bottleneck, (8, 16, 24)),
    "lite": (lite, (8, 4, 8, 12, 16)),
}


@pytest.fixture(params=BUILDS)
def built(request: pytest.FixtureRequest) -> tuple[Any, tuple[int, ...]]:
    """A model with statistics of its own in each normalization, and the channels to keep of it."""
    build, counts = BUILDS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight.data, module.running_var):
                    nn.init.uniform_(value, 0.5, 1.5)
                for value in (module.bias.data, module.running_mean):
                    nn.init.normal_(value, std=0.3)
    return model.eval(), counts


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(pixel_values=torch.from_numpy(PIXELS)).logits
        return found


def drop_unread(model: Any, counts: tuple[int, ...], scores: ChannelScores) -> Any:
    """The same model of full width in which nothing reads what is to go."""
    unread = copy.deepcopy(model)
    smaller = copy.deepcopy(model)
    keep_channels(smaller, counts, scores, PIXELS[:1])
    for group in find_groups(unread, PIXELS[:1]):
        kept = most_important(scores.groups[group.name], smaller.get_submodule(group.name).out_channels)
        gone = sorted(set(range(group.channels)) - set(kept))
        for reader in group.readers:
            reader.weight.data[:, gone] = 0
    return unread


@pytest.mark.parametrize("by", ["taylor", "magnitude"])
def test_what_is_removed_is_what_nothing_would_read_any_more(
    built: tuple[Any, tuple[int, ...]], by: Any, tmp_path: Path
) -> None:
    model, counts = built
    scores = score_channels(model, by, EXAMPLES, PIXELS[:1])
    expected = logits(drop_unread(model, counts, scores))
    whole = sum(value.numel() for value in model.parameters())
    assert (expected - logits(model)).abs().max() > 0.01
    keep_channels(model, counts, scores, PIXELS[:1])
    assert read_channels(model.config).counts == counts  # type: ignore[union-attr]
    assert sum(value.numel() for value in model.parameters()) < 0.6 * whole
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-3)


def test_a_narrowed_network_is_a_plain_model_of_transformers_that_trains_on(
    built: tuple[Any, tuple[int, ...]], tmp_path: Path
) -> None:
    model, counts = built
    keep_channels(model, counts, score_channels(model, "taylor", EXAMPLES, PIXELS[:1]), PIXELS[:1])
    model.config.architectures = [type(model).__name__]
    save_model(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    plain = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(plain), logits(model))
    answers = open_engine("torch", tmp_path, "fp32").run({"pixel_values": PIXELS})["logits"]
    np.testing.assert_allclose(answers, logits(model).numpy(), rtol=1e-5, atol=1e-5)
    student: Any = load_initial_model(str(tmp_path), IMAGES, None, None).train()
    loss = functional.cross_entropy(
        student(pixel_values=torch.from_numpy(PIXELS)).logits, torch.from_numpy(EXAMPLES.targets)
    )
    loss.backward()
    assert all(value.grad is not None for value in student.parameters())


def test_a_taylor_score_is_the_squared_slope_of_a_rows_loss(built: tuple[Any, tuple[int, ...]]) -> None:
    model, _ = built
    found = score_channels(model, "taylor", EXAMPLES, PIXELS[:1])
    model.double()

    def losses() -> torch.Tensor:
        with torch.inference_mode():
            given = torch.from_numpy(PIXELS).double()
            return functional.cross_entropy(
                model(pixel_values=given).logits, torch.from_numpy(EXAMPLES.targets), reduction="none"
            )

    step = 1e-5
    for group in find_groups(model.float(), PIXELS[:1]):
        model.double()
        weights = [(reader.weight.data, reader.weight.data.clone()) for reader in group.readers]
        slopes = []
        for factor in (1 + step, 1 - step):
            for now, before in weights:
                now.copy_(before)
                now[:, 1] *= factor
            slopes.append(losses())
        for now, before in weights:
            now.copy_(before)
        expected = float((((slopes[0] - slopes[1]) / (2 * step)) ** 2).mean())
        assert found.groups[group.name][1] == pytest.approx(expected, rel=0.02, abs=1e-8), group.name


def test_magnitude_is_the_squared_norm_of_what_makes_and_reads_a_channel() -> None:
    model = bottleneck()
    found = score_channels(model, "magnitude", EXAMPLES, PIXELS[:1])
    layers = model.resnet.encoder.stages[0].layers[1].layer
    name = "resnet.encoder.stages.0.layers.1.layer.0.convolution"
    expected = layers[0].convolution.weight.detach().square().sum(dim=(1, 2, 3))
    expected = expected + layers[1].convolution.weight.detach().square().sum(dim=(0, 2, 3))
    np.testing.assert_allclose(found.groups[name], expected.numpy(), rtol=1e-5)


def test_blocks_can_be_left_out_of_a_narrowed_network() -> None:
    model = basic().eval()
    keep_channels(model, (8, 8, 16), score_channels(model, "magnitude", EXAMPLES, PIXELS[:1]), PIXELS[:1])
    keep_blocks(model, (0, 2, 3))
    assert (model.config.depths, model.config.hidden_sizes) == ([1, 2], [8, 16])
    assert logits(model).shape == (12, 3)


def test_scores_of_another_model_are_refused() -> None:
    scores = score_channels(basic(), "magnitude", EXAMPLES, PIXELS[:1])
    with pytest.raises(ModelError, match="no scores of its own"):
        keep_channels(bottleneck(), (8, 16, 24), scores, PIXELS[:1])


def test_channels_of_other_builds_are_not_known(tiny_classifier: Path) -> None:
    from equipoise.engines.architectures import read_config

    assert read_channels(read_config(tiny_classifier)) is None
