from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from equipoise.config import RunConfig, load_config

Equipoise = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_config_it_writes_is_valid_and_explains_every_key(equipoise: Equipoise, tmp_path: Path) -> None:
    found = equipoise(
        "init", "first.yaml", "--train", "a.csv", "--test", "b.csv", "--teacher", "hf://org/name"
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "equipoise run -f first.yaml --dry-run" in found.stdout
    config = load_config(tmp_path / "first.yaml")
    assert config == RunConfig.model_validate(
        {
            "name": "first",
            "data": {"train": "a.csv", "test": "b.csv"},
            "model": {"teacher": "hf://org/name"},
        }
    )
    text = (tmp_path / "first.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text).keys() == RunConfig.model_fields.keys()
    keys = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert text.count("#") >= len(keys) - 1


@pytest.mark.parametrize("name", ["My Data.v2.yaml", "_x_.yml", "2024.yaml", f"{'long' * 20}.yaml"])
def test_any_file_name_gives_a_valid_run_name(equipoise: Equipoise, tmp_path: Path, name: str) -> None:
    assert equipoise("init", name).returncode == 0
    load_config(tmp_path / name)


def test_a_file_that_stands_is_kept_unless_forced(equipoise: Equipoise, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("mine", encoding="utf-8")
    found = equipoise("init")
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "run.yaml" in found.stderr
    assert "--force" in found.stderr
    assert (tmp_path / "run.yaml").read_text(encoding="utf-8") == "mine"
    assert equipoise("init", "--force").returncode == 0
    load_config(tmp_path / "run.yaml")


def test_a_new_folder_is_made_for_it(equipoise: Equipoise, tmp_path: Path) -> None:
    assert equipoise("init", "configs/new/run.yaml").returncode == 0
    load_config(tmp_path / "configs" / "new" / "run.yaml")


def test_a_place_that_cannot_be_written_is_one_line(equipoise: Equipoise, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    found = equipoise("init", "file/run.yaml")
    assert found.returncode in (2, 6)
    assert found.stderr.count("\n") == 1
    assert "defect" not in found.stderr
