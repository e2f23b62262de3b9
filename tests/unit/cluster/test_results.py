from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from equipoise.cluster.results import FETCHED, print_archive, read_archive, unpack_archive
from equipoise.errors import RunFolderError, ServiceError

SOURCE = {"job": "tiny-1", "from": "Ray at http://127.0.0.1:8265"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for name, content in {
        "config.json": "{}",
        "choice.json": '{"feasible": true}',
        "report.html": "<p>",
        "bundle/bundle.json": "{}",
        "bundle/model/model.onnx": "x" * 100_000,
        "candidates/abc.json": "{}",
        "ledger/driver/0.jsonl": "{}",
        "teacher/model.safetensors": "weights",
        "models/abc/model.onnx": "weights",
        "candidates/.tmp-1": "half",
        ".lock": "",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def printed(folder: Path) -> str:
    out = io.StringIO()
    print_archive(folder, out)
    return out.getvalue()


def test_records_come_back_as_they_were_and_weights_stay(run: Path, tmp_path: Path) -> None:
    # A log holds other things too.
    log = f"2026-01-01 INFO worker started\n{printed(run)}and more\n"
    target = tmp_path / "fetched"
    unpack_archive(read_archive(log), target, SOURCE)
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert found == {
        FETCHED,
        "config.json",
        "choice.json",
        "report.html",
        "bundle/bundle.json",
        "bundle/model/model.onnx",
        "candidates/abc.json",
        "ledger/driver/0.jsonl",
    }
    assert (target / "bundle/model/model.onnx").read_bytes() == (run / "bundle/model/model.onnx").read_bytes()
    assert json.loads((target / FETCHED).read_text()) == SOURCE


def test_the_command_that_the_cluster_runs_prints_the_same(run: Path) -> None:
    command = [sys.executable, "-m", "equipoise.cluster.results", str(run)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    with tarfile.open(fileobj=io.BytesIO(read_archive(found.stdout))) as archive:
        assert "choice.json" in archive.getnames()
    absent = subprocess.run(
        [*command[:-1], str(run / "no")], capture_output=True, text=True, check=False, timeout=60
    )
    assert (absent.returncode, absent.stdout) == (2, "")
    assert absent.stderr.startswith("equipoise: ")


@pytest.mark.parametrize("cut", [0, 40, 400, -30])
def test_an_archive_that_did_not_arrive_whole_is_refused(cut: int, run: Path) -> None:
    with pytest.raises(ServiceError, match="did not arrive whole"):
        read_archive(printed(run)[:cut])


def test_an_archive_with_one_character_changed_is_refused(run: Path) -> None:
    log = printed(run)
    middle = len(log) // 2
    other = "A" if log[middle] != "A" else "B"
    with pytest.raises(ServiceError, match="arrived damaged"):
        read_archive(log[:middle] + other + log[middle + 1 :])


def test_a_copy_is_replaced_and_anything_else_is_not(run: Path, tmp_path: Path) -> None:
    content, target = read_archive(printed(run)), tmp_path / "fetched"
    unpack_archive(content, target, SOURCE)
    unpack_archive(content, target, {**SOURCE, "job": "tiny-1-2"})
    assert json.loads((target / FETCHED).read_text())["job"] == "tiny-1-2"
    with pytest.raises(RunFolderError, match="was not fetched from a cluster"):
        unpack_archive(content, run, SOURCE)
    assert (run / "teacher/model.safetensors").exists()


def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("../escaped")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(ServiceError, match="cannot be unpacked"):
        unpack_archive(packed.getvalue(), tmp_path / "fetched", SOURCE)
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "fetched").exists()
