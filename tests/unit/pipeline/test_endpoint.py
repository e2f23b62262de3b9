from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.bundle import write_bundle
from equipoise.config.model import ModelConfig
from equipoise.config.serving import ServingConfig
from equipoise.errors import BundleError
from equipoise.pipeline.endpoint import is_served, keep_serving
from equipoise.tasks.text_generation import TextGeneration


def test_a_language_model_that_cannot_write_is_refused_before_anything_starts(
    tiny_llama: Path, tmp_path: Path
) -> None:
    bundle = write_bundle(
        tmp_path / "bundle",
        name="writer",
        task=TextGeneration.create(tiny_llama, (), ModelConfig(teacher=str(tiny_llama), max_length=32)),
        engine="openvino",
        precision="fp32",
        model_folder=tiny_llama,
        candidate={},
    )
    told: list[str] = []
    with pytest.raises(BundleError, match="scores texts and cannot write them") as caught:
        keep_serving(bundle, ServingConfig(), None, told.append)
    assert caught.value.exit_status == 2
    assert told == []


def test_the_other_families_are_served() -> None:
    assert is_served("text")
    assert is_served("words")
    assert is_served("image")
