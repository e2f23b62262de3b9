from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equipoise.compression.structure import read_layers, student_layers
from equipoise.config.model import ModelConfig
from equipoise.errors import ConfigError, ModelError
from equipoise.training.initialization import load_initial_model
from equipoise.training.pretrained import resolve_pretrained

ARCHITECTURE = {
    "num_channels": 1,
    "embedding_size": 8,
    "hidden_sizes": [8, 12],
    "depths": [3, 2],
    "layer_type": "basic",
    "downsample_in_first_stage": False,
}
FILES = ("config.json", "model.safetensors")


@pytest.fixture
def resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return resolve_pretrained(ModelConfig(teacher="new://resnet", architecture=ARCHITECTURE), FILES)


def load(folder: Path, blocks: tuple[int, ...] | None) -> torch.nn.Module:
    return load_initial_model(str(folder), "AutoModelForImageClassification", 4, blocks)


def test_a_new_model_is_made_once_and_alike(resnet: Path, tmp_path: Path) -> None:
    settings = ModelConfig(teacher="new://resnet", architecture=ARCHITECTURE)
    assert resolve_pretrained(settings, FILES) == resnet
    content = (resnet / "model.safetensors").read_bytes()
    resnet.rename(tmp_path / "away")
    assert (resolve_pretrained(settings, FILES) / "model.safetensors").read_bytes() == content


def test_kept_blocks_keep_their_weights_and_answer(resnet: Path) -> None:
    assert read_layers(resnet) == (5, (0, 3))
    whole, student = load(resnet, None), load(resnet, (0, 2, 3))
    assert student.config.depths == [2, 1]
    kept = student.resnet.encoder.stages[0].layers[1].state_dict()
    for name, value in whole.resnet.encoder.stages[0].layers[2].state_dict().items():
        torch.testing.assert_close(kept[name], value)
    assert student(pixel_values=torch.zeros(2, 1, 16, 16)).logits.shape == (2, 4)
    assert sum(p.numel() for p in student.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize(
    ("blocks", "fault"), [((1, 3), "first block"), ((0, 1), "first block"), ((0, 3, 5), "5")]
)
def test_blocks_that_cannot_be_left_out_are_named(resnet: Path, blocks: tuple[int, ...], fault: str) -> None:
    with pytest.raises(ModelError, match=fault):
        load(resnet, blocks)


def test_students_of_a_resnet_keep_the_first_block_of_each_stage() -> None:
    assert student_layers(5, 2, "spread", (0, 3)) == (0, 3)
    assert student_layers(5, 3, "first", (0, 3)) == (0, 1, 3)
    assert student_layers(5, 3, "last", (0, 3)) == (0, 3, 4)
    assert student_layers(5, 4, "spread", (0, 3)) == (0, 1, 3, 4)
    assert student_layers(5, 5, "spread", (0, 3)) == (0, 1, 2, 3, 4)
    with pytest.raises(ConfigError, match=r"of which 2 begin a stage and must stay.*use 2 to 5"):
        student_layers(5, 1, "first", (0, 3))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"teacher": "new://nosuchtype"}, "no model of that type"),
        ({"teacher": "new://resnet", "architecture": {"widths": [1]}}, "no setting of that name"),
        ({"teacher": "new://resnet", "architecture": {"layer_type": "odd"}}, "cannot be made"),
    ],
)
def test_a_model_that_cannot_be_made_is_one_line(settings: dict[str, object], fault: str) -> None:
    with pytest.raises(ModelError, match=fault):
        resolve_pretrained(ModelConfig.model_validate(settings), FILES)
