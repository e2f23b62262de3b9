from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from equipoise.config.model import ModelConfig
from equipoise.errors import BundleError, DataError
from equipoise.tasks import find_task
from equipoise.tasks.image_classification import ImageClassification

SETTINGS = ModelConfig(teacher="new://resnet")


def build(side: int = 4, channels: int = 1) -> ImageClassification:
    return ImageClassification(["cat", "dog"], side, channels, [0.5] * channels, [0.25] * channels)


def put_config(folder: Path, **config: object) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_it_is_a_registered_family() -> None:
    assert find_task("image_classification") is ImageClassification


def test_pixels_are_scaled_and_normalized() -> None:
    image = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    pixels = build(side=2).encode([image])["pixel_values"]
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, [[[[-2, 2], [2, -2]]]])


@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_colour_fits(channels: int) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((9, 7), (9, 7, 3), (4, 4), (4, 4, 3))]
    assert build(channels=channels).encode(images)["pixel_values"].shape == (4, channels, 4, 4)


def test_an_image_is_encoded_alike_in_whatever_company() -> None:
    task = build(side=8)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (12, 10), dtype=np.uint8) for _ in range(5)]
    together = task.encode(images)["pixel_values"]
    for index, image in enumerate(images):
        np.testing.assert_array_equal(task.encode([image])["pixel_values"][0], together[index])


def test_the_size_comes_from_the_settings_the_model_or_its_preprocessor(tmp_path: Path) -> None:
    folder = put_config(tmp_path, num_channels=3)
    assert ImageClassification.create(folder, ["a"], SETTINGS).side == 224
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"shortest_edge": 96}, "image_mean": [0.4] * 3, "image_std": [0.2] * 3})
    )
    task = ImageClassification.create(folder, ["a"], SETTINGS)
    assert (task.side, task.mean, task.deviation) == (96, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    put_config(tmp_path, num_channels=3, image_size=64)
    assert ImageClassification.create(folder, ["a"], SETTINGS).side == 64
    asked = SETTINGS.model_copy(update={"image_size": 32})
    assert ImageClassification.create(folder, ["a"], asked).side == 32


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    task = build(channels=3)
    task.save(tmp_path)
    again = ImageClassification.load(tmp_path, task.describe())
    assert again.describe() == task.describe()
    put_config(tmp_path, num_channels=3)
    assert ImageClassification.create(tmp_path, ["cat", "dog"], SETTINGS).describe() == task.describe()
    description = task.describe()
    del description["side"]
    with pytest.raises(BundleError, match="lacks 'side'"):
        ImageClassification.load(tmp_path, description)


def test_decoded_scores_add_up() -> None:
    [answer] = build().decode({"logits": np.array([[0.0, 2.0]], dtype=np.float32)}, {}, [])
    assert answer["label"] == "dog"
    assert sum(answer["scores"].values()) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
def test_a_client_sends_an_image_file_in_base64(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    task = build()
    np.testing.assert_array_equal(task.from_text(task.to_text(image)), image)


@pytest.mark.parametrize(("text", "fault"), [("%%%", "is not base64"), ("bm90aGluZw==", "cannot be decoded")])
def test_what_is_no_image_file_is_refused(text: str, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        build().from_text(text)
