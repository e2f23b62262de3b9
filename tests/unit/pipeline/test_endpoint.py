from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.bundle import write_bundle
from equipoise.config.model import ModelConfig
from equipoise.config.serving import ServingConfig
from equipoise.errors import BundleError, ConfigError
from equipoise.pipeline.endpoint import is_served, keep_serving
from equipoise.tasks.text_generation import TextGeneration
from equipoise_serving.app import build
from equipoise_serving.writable import check_writes


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


def test_a_language_model_that_is_to_be_scaled_is_refused_in_one_line(
    tiny_llama: Path, tmp_path: Path
) -> None:
    bundle = write_bundle(
        tmp_path / "bundle",
        name="writer",
        task=TextGeneration.create(tiny_llama, (), ModelConfig(teacher=str(tiny_llama), max_length=32)),
        engine="torch",
        precision="fp32",
        model_folder=tiny_llama,
        candidate={},
    )
    with pytest.raises(ConfigError, match=r"serving.max_replicas: .* scoring whole texts \(got 4\)"):
        keep_serving(bundle, ServingConfig(max_replicas=4), None, lambda line: None)
    with pytest.raises(ConfigError, match=r"serving.max_replicas"):
        build({"bundle": str(bundle.folder), "serving": {"max_replicas": 4}})
    # Of other families it is nobody's business here.
    check_writes(bundle.manifest.model_copy(update={"task": {}}), ServingConfig(max_replicas=4), "here")


def test_the_other_families_are_served() -> None:
    assert is_served("text")
    assert is_served("words")
    assert is_served("image")
