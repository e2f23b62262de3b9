from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equipoise.config.model import ModelConfig
from equipoise.errors import ModelError
from equipoise.training.pretrained import resolve_pretrained

FILES = ("config.json", "model.safetensors", "tokenizer.json")


def resolve(source: str) -> Path:
    return resolve_pretrained(ModelConfig(teacher=source), FILES)


def test_a_folder_with_everything_is_itself(tiny_bert: Path) -> None:
    assert resolve(str(tiny_bert)) == tiny_bert


def test_a_sample_is_the_packages_folder(minilm: Path) -> None:
    assert resolve("sample://all-minilm-l6-v2") == minilm


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(str(tmp_path / "absent"))
    assert caught.value.where == "model.teacher"
    assert "absent" in str(caught.value)
    assert "hf://" in caught.value.remedy


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tiny_bert: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"has no {name}") as caught:
        resolve(str(folder))
    assert "safetensors" in caught.value.remedy


def test_pickled_weights_are_no_weights(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        resolve(str(folder))


def test_a_name_that_no_hub_can_have_is_wrong_for_good() -> None:
    with pytest.raises(ModelError, match="no such model"):
        resolve("hf://not a/name/at all")


ASK = """
import sys
from equipoise.config.model import ModelConfig
from equipoise.errors import EquipoiseError
from equipoise.training.pretrained import resolve_pretrained
try:
    print(resolve_pretrained(ModelConfig(teacher="hf://nonexistent/model"), ("config.json",)))
except EquipoiseError as error:
    print(error)
    sys.exit(error.exit_status)
"""


def ask_hub(tmp_path: Path, **environment: str) -> tuple[int, str, float]:
    """Exit status, answer and seconds of asking for a hub model, with an empty cache."""
    started = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HF_HOME": str(tmp_path), **environment},
    )
    assert found.stderr == ""
    return found.returncode, found.stdout, time.monotonic() - started


@pytest.mark.parametrize(
    "environment",
    [
        # Discard: nothing listens there.
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
        {"HF_HUB_OFFLINE": "1"},
        {
            "HF_ENDPOINT": "http://hub.invalid",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        },
    ],
    ids=["refused", "offline", "proxy"],
)
def test_a_hub_that_cannot_be_reached_is_worth_another_try(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    status, answer, _ = ask_hub(tmp_path, **environment)
    assert status == 6
    assert answer.count("\n") == 1
    assert "model.teacher" in answer
    assert "hf://nonexistent/model" in answer
    assert "local folder" in answer


@pytest.mark.slow
def test_a_hub_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        status, answer, seconds = ask_hub(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert status == 6
    assert answer.count("\n") == 1
    assert seconds < 45


def test_a_cached_model_needs_no_hub(tmp_path: Path, tiny_bert: Path) -> None:
    repository = tmp_path / "hub" / "models--nonexistent--model"
    shutil.copytree(tiny_bert, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    status, answer, _ = ask_hub(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert status == 0
    assert Path(answer.strip()) == repository / "snapshots" / ("0" * 40)
