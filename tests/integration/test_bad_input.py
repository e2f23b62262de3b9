"""Everything a user can get wrong, through the command: one line that helps, and nothing left behind."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise import storage
from equipoise.bundle import open_bundle, write_bundle
from equipoise.errors import BundleError, StorageError
from equipoise.tasks.text_classification import TextClassification

Rows = list[tuple[str, ...]]


@pytest.fixture
def folder(runs: Any, request: pytest.FixtureRequest) -> Path:
    """A folder for this test's files; the command runs in the one above it."""
    path: Path = runs.folder / f"{abs(hash(request.node.name)):x}"
    path.mkdir()
    return path


def write_rows(path: Path, rows: Rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


GOOD: Rows = [("text", "label")] + [
    (f"word {number} {label}", label) for number in range(20) for label in ("yes", "no")
]

# What the file holds, and what the line must name: the file or the field, the value, the remedy.
DATA_FAULTS: dict[str, tuple[Rows | bytes | None, list[str]]] = {
    "missing": (None, ["train.csv", "no such file", "check the path"]),
    "empty": (b"", ["train.csv", "is empty", "give a file with rows"]),
    "header only": ([("text", "label")], ["train.csv", "has no rows", "give"]),
    "binary": (bytes(range(256)) * 40, ["train.csv:1", "not text", "UTF-8"]),
    "latin-1": (
        "text,label\ncaf\xe9,yes\n".encode("latin-1"),
        ["train.csv:2", "not UTF-8", "save it as UTF-8"],
    ),
    "no label column": (
        [("text", "lable"), ("a", "b")],
        ["train.csv:1", "has no column 'label'", "did you mean 'lable'", "data.label_column"],
    ),
    "one class": (
        [("text", "label"), ("a", "yes"), ("b", "yes"), ("c", "yes")],
        ["data.train", "one class only", "'yes'", "two classes"],
    ),
    "label that train lacks": (
        [("text", "label")] + [(f"other {number}", "yes" if number % 2 else "maybe") for number in range(20)],
        ["data.test", "'no'", "add training rows"],
    ),
    "a row of 1 MB": (
        [*GOOD, ("x" * 1_000_000, "yes")],
        ["train.csv:42", "1,000,000 bytes", "262144", "data.max_row_bytes"],
    ),
    "a line too wide": ([*GOOD, ("a", "b", "c")], ["train.csv:42", "3 columns", "double quotes"]),
    "a null label": ([*GOOD, ("some text", "")], ["train.csv:42", "label is null", "give every row a label"]),
    "no text at all": ([("text", "label"), (" ", "yes"), ("", "no")], ["data.train", "every text is empty"]),
}


def refused(found: subprocess.CompletedProcess[str], status: int, parts: list[str]) -> None:
    assert found.returncode == status, found.stderr
    assert found.stdout == ""
    assert found.stderr.startswith("equipoise: ")
    assert found.stderr.count("\n") == 1
    for part in parts:
        assert part in found.stderr
    assert "defect of ours" not in found.stderr


@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_a_fault_in_the_data_is_one_line(
    fault: str, folder: Path, runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> None:
    content, parts = DATA_FAULTS[fault]
    train = folder / "train.csv"
    if isinstance(content, bytes):
        train.write_bytes(content)
    elif content is not None:
        write_rows(train, content)
    test = write_rows(folder / "test.csv", GOOD)
    values = tiny_run(data={"train": str(train), "test": str(test)}, output=str(folder / "run"))
    (folder / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    refused(runs.call("run", "-f", str(folder / "run.yaml"), "--dry-run"), 2, parts)
    assert not (folder / "run").exists()


CONFIG_FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": (
        {"training": {"learning_rte": 0.1}},
        ["training.learning_rte", "unknown key", "0.1", "did you mean 'learning_rate'"],
    ),
    "wrong type": ({"training": {"epochs": "many"}}, ["training.epochs", "'many'", "number"]),
    "out of range": (
        {"constraints": {"max_drop": 5}},
        ["constraints.max_drop", "5", "less than or equal to 1"],
    ),
    "unknown engine": (
        {"search": {"engines": ["tensorrt"]}},
        ["search.engines", "'tensorrt'", "'onnxruntime'"],
    ),
    "no such choice": ({"search": {"sampler": "magic"}}, ["search.sampler", "'magic'", "'tpe'"]),
    "bad name": ({"name": "My Run"}, ["name", "'My Run'"]),
    "unknown task": ({"task": "telepathy"}, ["task", "'telepathy'", "text_classification"]),
    "unknown node": ({"cost": {"node": "aws/c7i.larg"}}, ["cost.node", "'aws/c7i.larg'", "did you mean"]),
    "missing price book": (
        {"cost": {"prices": "absent.yaml"}},
        ["absent.yaml", "no such price book", "cost.prices"],
    ),
    "batch and workers": (
        {"training": {"workers": 2, "batch_size": 15}},
        ["training.batch_size", "15", "2 workers", "such as 16"],
    ),
    "too deep a student": ({"search": {"depths": [1, 9]}}, ["search.depths", "9", "use 1 to 2"]),
    "missing model": ({"model": {"teacher": "no/such/folder"}}, ["model.teacher", "no/such/folder", "hf://"]),
    "unknown sample": ({"model": {"teacher": "sample://nothing"}}, ["sample://nothing", "all-minilm-l6-v2"]),
    "unknown data sample": (
        {"data": {"train": "sample://nothing/train"}},
        ["sample://nothing/train", "reuters-r8"],
    ),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_fault_in_the_config_is_one_line(
    fault: str, folder: Path, runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> None:
    changes, parts = CONFIG_FAULTS[fault]
    values = tiny_run(output=str(folder / "run"), **changes)
    (folder / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    # Without --dry-run: a real run must find it as early, and leave as little.
    refused_run = runs.call("run", "-f", str(folder / "run.yaml"))
    assert refused_run.returncode == 2, refused_run.stderr
    last = refused_run.stderr.splitlines()[-1]
    assert last.startswith("equipoise: ")
    assert all(part in last for part in parts), last
    assert "Traceback" not in refused_run.stderr
    assert not (folder / "run").exists()
    refused(runs.call("run", "-f", str(folder / "run.yaml"), "--dry-run"), 2, parts)


def test_a_fault_out_of_a_ray_task_is_one_line_too(
    folder: Path, runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> None:
    """A speed that no structure has is found by a task that measures, before the teacher is trained."""
    recipe = [{"prune": {"speedup": 1000}}, "distil"]
    values = tiny_run(output=str(folder / "run"), compression={"recipes": [recipe]})
    (folder / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = runs.call("run", "-f", str(folder / "run.yaml"), XDG_CACHE_HOME=str(folder / "cache"))
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    last = found.stderr.splitlines()[-1]
    assert last.startswith("equipoise: compression.recipes.0.prune.speedup: is beyond the latency table")
    assert "(got 1000.0); ask for " in last
    assert not (folder / "run" / "teacher").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: [unclosed\n", [":2", "not valid YAML"]),
        ("- a\n- list\n", ["not a mapping", "equipoise init"]),
        ("\0\1\2", ["not valid YAML"]),
        ("a: &a [x, x]\nb: &b [*a, *a]\nname: *b\n", ["name"]),
        ("x" * 1_000_001, ["too large", "1 MB"]),
        ("", ["not a mapping"]),
    ],
    ids=["yaml", "list", "binary", "aliases", "huge", "empty"],
)
def test_a_config_that_is_none_is_one_line(folder: Path, runs: Any, text: str, parts: list[str]) -> None:
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    refused(runs.call("run", "-f", str(folder / "run.yaml"), "--dry-run"), 2, ["run.yaml", *parts])


def test_a_model_hub_that_cannot_be_reached_is_status_6(
    folder: Path, runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> None:
    values = tiny_run(model={"teacher": "hf://nonexistent/model"}, output=str(folder / "run"))
    (folder / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = runs.call(
        "run", "-f", str(folder / "run.yaml"), "--dry-run", timeout_s=60,
        HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(folder / "hub"),
    )  # fmt: skip
    refused(found, 6, ["model.teacher", "hf://nonexistent/model", "local folder"])
    assert not (folder / "run").exists()


def test_a_folder_that_cannot_be_made_is_one_line(
    folder: Path, runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> None:
    (folder / "file").write_text("", encoding="utf-8")
    values = tiny_run(output=str(folder / "file" / "run"))
    (folder / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = runs.call("run", "-f", str(folder / "run.yaml"))
    assert found.returncode in (2, 6)
    assert str(folder / "file") in found.stderr.splitlines()[-1]
    assert "defect" not in found.stderr
    assert "Traceback" not in found.stderr


def test_a_port_in_use_is_status_6_before_anything_trains(
    runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> None:
    folder = runs.folder / "port"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = runs.write("port.yaml", tiny_run(serving={"port": port}))
        found = runs.call("run", "-f", str(config), "--out", str(folder), "--json")
    assert (found.returncode, found.stdout) == (6, "")
    last = found.stderr.splitlines()[-1]
    assert f"127.0.0.1:{port}" in last
    assert "serving.port" in last
    assert "Traceback" not in found.stderr
    assert not (folder / "teacher").exists()
    assert runs.left() == []


@pytest.fixture
def small_disk(folder: Path) -> Path:
    """A file system of 6 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    target = folder / "disk"
    target.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(target)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    return target


def test_a_disk_that_fills_leaves_the_old_bundle_whole(
    small_disk: Path, tiny_classifier: Path, tiny_task: TextClassification
) -> None:
    try:
        model = small_disk.parent / "model"
        model.mkdir()
        for name in ("config.json", "model.safetensors"):
            (model / name).write_bytes((tiny_classifier / name).read_bytes())

        def write(candidate: str) -> None:
            write_bundle(
                small_disk / "bundle",
                name="tiny",
                task=tiny_task,
                engine="torch",
                precision="fp32",
                model_folder=model,
                candidate={"recipe_hash": candidate},
            )

        write("first")
        before = {path: path.read_bytes() for path in (small_disk / "bundle").rglob("*") if path.is_file()}
        with pytest.raises(StorageError, match="disk is full") as caught:
            write("second")
        assert caught.value.exit_status == 6
        assert open_bundle(small_disk / "bundle").manifest.candidate == {"recipe_hash": "first"}
        assert {p: p.read_bytes() for p in (small_disk / "bundle").rglob("*") if p.is_file()} == before
        assert [path.name for path in small_disk.iterdir()] == ["bundle"]

        # With room again, the same call succeeds.
        storage.put_bytes(str(model / "model.safetensors"), (model / "model.safetensors").read_bytes())
        subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
        write("second")
        assert open_bundle(small_disk / "bundle").manifest.candidate == {"recipe_hash": "second"}
    finally:
        subprocess.run(["umount", str(small_disk)], check=True)


def test_a_bundle_for_nobody_is_one_line(folder: Path, runs: Any) -> None:
    refused(runs.call("serve", str(folder)), 2, [str(folder), "neither a bundle nor a run folder"])
    with pytest.raises(BundleError):
        open_bundle(folder)
