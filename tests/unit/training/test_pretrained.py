from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from equipoise.errors import ModelError, ServiceError
from equipoise.training.pretrained import resolve_pretrained


def test_a_folder_with_everything_is_itself(tiny_bert: Path) -> None:
    assert resolve_pretrained(str(tiny_bert)) == tiny_bert


def test_a_sample_is_the_packages_folder(minilm: Path) -> None:
    assert resolve_pretrained("sample://all-minilm-l6-v2") == minilm


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_pretrained(str(tmp_path / "absent"))
    assert caught.value.where == "model.teacher"
    assert "absent" in str(caught.value)
    assert "hf://" in caught.value.remedy


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tiny_bert: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"has no {name}") as caught:
        resolve_pretrained(str(folder))
    assert "safetensors" in caught.value.remedy


def test_pickled_weights_are_no_weights(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        resolve_pretrained(str(folder))


def test_a_hub_that_cannot_be_reached_is_worth_another_try(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Discard: nothing listens on port 9, here or on a machine that reaches the hub.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        resolve_pretrained("hf://nonexistent/model")
    assert time.monotonic() - started < 60
    assert caught.value.exit_status == 6
    assert "\n" not in str(caught.value)
    assert "hf://nonexistent/model" in str(caught.value)
    assert "local folder" in caught.value.remedy


def test_a_name_that_no_hub_has_is_wrong_for_good() -> None:
    with pytest.raises(ModelError, match="no such model"):
        resolve_pretrained("hf://not a/name/at all")
