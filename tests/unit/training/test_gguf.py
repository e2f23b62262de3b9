from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.config.model import ModelConfig
from equipoise.data import sample_model
from equipoise.errors import ModelError
from equipoise.tasks.text_generation import TextGeneration
from equipoise.training.gguf import convert_gguf, describe_conversion
from equipoise.training.pretrained import resolve_pretrained


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_that_is_no_gguf_is_refused_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(200))
    with pytest.raises(ModelError, match="cannot be converted from GGUF") as caught:
        resolve_pretrained(ModelConfig(teacher=str(file)), TextGeneration.files)
    assert "\n" not in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_folder_that_was_not_converted_has_nothing_to_tell(tiny_llama: Path) -> None:
    assert describe_conversion(tiny_llama) is None


@pytest.mark.slow
def test_the_sample_is_converted_once(cache: Path) -> None:
    try:
        file = sample_model("smollm2-135m")
    except ModelError as error:
        pytest.skip(str(error))
    folder = resolve_pretrained(ModelConfig(teacher="sample://smollm2-135m"), TextGeneration.files)
    assert folder.is_relative_to(cache)
    assert "dequantized from SmolLM2-135M-Instruct.Q4_1.gguf (Q4_1)" in str(describe_conversion(folder))
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert convert_gguf(file) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
