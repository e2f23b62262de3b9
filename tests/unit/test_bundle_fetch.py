from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from equipoise.bundle import Bundle, open_bundle, write_bundle
from equipoise.bundle_fetch import fetch_bundle, find_bundle
from equipoise.errors import BundleError, StorageError
from equipoise.tasks.text_classification import TextClassification


@pytest.fixture
def bundle(tmp_path: Path, tiny_task: TextClassification, tiny_classifier: Path) -> Bundle:
    return write_bundle(
        tmp_path / "run" / "bundle",
        name="tiny",
        task=tiny_task,
        engine="torch",
        precision="fp32",
        model_folder=tiny_classifier,
        candidate={},
    )


def test_a_bundle_is_found_by_its_own_folder_and_by_its_run(bundle: Bundle, tmp_path: Path) -> None:
    own, run = find_bundle(str(bundle.folder)), find_bundle(f"{tmp_path}/run/")
    assert own == run
    assert own[0] == str(bundle.folder)
    assert own[1].name == "tiny"


def test_a_path_is_served_from_where_it_lies(bundle: Bundle, tmp_path: Path) -> None:
    assert fetch_bundle(str(bundle.folder), tmp_path / "cache") == bundle.folder
    assert not (tmp_path / "cache").exists()


def test_a_uri_is_fetched_once_for_all_replicas_of_a_node(bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    uri = bundle.folder.as_uri()
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch_bundle(uri, cache))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert open_bundle(found[0]).manifest == bundle.manifest
    before = (found[0] / "bundle.json").stat().st_mtime_ns
    fetch_bundle(uri, cache)
    assert (found[0] / "bundle.json").stat().st_mtime_ns == before
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [found[0].name]


def test_another_bundle_at_the_same_place_is_fetched_anew(
    bundle: Bundle, tmp_path: Path, tiny_task: TextClassification, tiny_classifier: Path
) -> None:
    uri = bundle.folder.as_uri()
    first = fetch_bundle(uri, tmp_path / "cache")
    write_bundle(
        bundle.folder,
        name="second",
        task=tiny_task,
        engine="torch",
        precision="fp32",
        model_folder=tiny_classifier,
        candidate={},
    )
    second = fetch_bundle(uri, tmp_path / "cache")
    assert first != second
    assert open_bundle(second).manifest.name == "second"
    assert open_bundle(first).manifest.name == "tiny"


def test_what_arrives_damaged_is_refused_and_not_kept(bundle: Bundle, tmp_path: Path) -> None:
    weights = bundle.folder / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BundleError, match="SHA-256 differs"):
        fetch_bundle(bundle.folder.as_uri(), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_missing_file_is_named(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.folder / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        fetch_bundle(bundle.folder.as_uri(), tmp_path / "cache")


def test_a_manifest_that_reaches_outside_writes_nothing_there(bundle: Bundle, tmp_path: Path) -> None:
    file = bundle.folder / "bundle.json"
    held = json.loads(file.read_text(encoding="utf-8"))
    held["files"]["../../stolen"] = "0" * 64
    file.write_text(json.dumps(held), encoding="utf-8")
    with pytest.raises(BundleError, match="outside of it"):
        fetch_bundle(bundle.folder.as_uri(), tmp_path / "cache")
    assert not list(tmp_path.rglob("stolen"))


def test_no_bundle_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        find_bundle(tmp_path.as_uri())
    assert str(caught.value) == (
        f"{tmp_path.as_uri()}: is neither a bundle nor a run folder with one; "
        "finish a run, or name its folder"
    )


def test_a_store_that_cannot_be_read_is_worth_another_try(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        find_bundle(str(tmp_path))
