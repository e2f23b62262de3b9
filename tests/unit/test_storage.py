from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow import fs as pafs

from equipoise import storage
from equipoise.errors import InputError, StorageError

WRITER = """
import sys
from equipoise import storage
print("ready", flush=True)
while True:
    for letter in b"ab":
        storage.put_bytes(sys.argv[1], bytes([letter]) * 4_000_000)
"""

FOLDER_WRITER = """
import sys
from pathlib import Path
from equipoise import storage
def fill(folder):
    for name in "123":
        (folder / name).write_bytes(letter * 500_000)
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        storage.write_folder(Path(sys.argv[1]), fill)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small file system needs root and mount(8)")
    command = [mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small file system is refused here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def filler(content: bytes) -> Callable[[Path], None]:
    """Fills a folder with one file."""

    def fill(folder: Path) -> None:
        (folder / "a").write_bytes(content)

    return fill


def kill_while_writing(script: str, target: Path) -> None:
    """Start the writer, let it work for a moment and end it with no chance to clean up."""
    command = [sys.executable, "-c", script, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        while not target.exists():
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))  # noqa: S311
        writer.send_signal(signal.SIGKILL)


def test_put_and_read_back(tmp_path: Path) -> None:
    where = str(tmp_path / "deep" / "er" / "object")
    assert not storage.exists(where)
    storage.put_bytes(where, b"one")
    storage.put_bytes(where, b"two")
    assert storage.read_bytes(where) == b"two"
    assert storage.exists(where)
    storage.put_json(where, {"b": [1, 2.5, None], "a": "é"})
    assert storage.read_json(where) == {"a": "é", "b": [1, 2.5, None]}


def test_a_missing_object_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(str(tmp_path / "no"))
    for content in (b'{"a": 1', b"\xff\xfe", b""):
        storage.put_bytes(str(tmp_path / "bad.json"), content)
        with pytest.raises(InputError, match=r"bad\.json: not valid JSON"):
            storage.read_json(str(tmp_path / "bad.json"))


def test_uris_and_paths(tmp_path: Path) -> None:
    storage.put_bytes(f"file://{tmp_path}/a", b"x")
    assert storage.read_bytes(str(tmp_path / "a")) == b"x"
    assert storage.is_uri("s3://bucket/key")
    assert not storage.is_uri("/a/b")
    with pytest.raises(InputError, match="not a usable location"):
        storage.open_location("nowhere://a")


def test_listing_leaves_out_what_is_still_being_written(tmp_path: Path) -> None:
    for name in ("b", "sub/a", ".tmp-1", ".tmp-folder/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert storage.list_files(str(tmp_path)) == ["b", "sub/a"]
    assert storage.list_files(f"file://{tmp_path}") == ["b", "sub/a"]
    assert storage.list_files(str(tmp_path / "none")) == []


@pytest.mark.parametrize("attempt", range(6))
def test_a_writer_killed_midway_leaves_whole_objects(tmp_path: Path, attempt: int) -> None:
    target = tmp_path / "object"
    kill_while_writing(WRITER, target)
    content = storage.read_bytes(str(target))
    assert content in (b"a" * 4_000_000, b"b" * 4_000_000)
    assert storage.list_files(str(tmp_path)) == ["object"]


@pytest.mark.parametrize("attempt", range(4))
def test_a_folder_writer_killed_midway_leaves_whole_folders(tmp_path: Path, attempt: int) -> None:
    target = tmp_path / "folder"
    kill_while_writing(FOLDER_WRITER, target)
    # Between the two renames there may be no folder; there is never half of one.
    found = {(target / name).read_bytes() for name in "123"} if target.exists() else {b"a" * 500_000}
    assert found in ({b"a" * 500_000}, {b"b" * 500_000})


def test_a_full_disk_keeps_the_old_object(small_disk: Path) -> None:
    where = str(small_disk / "object")
    storage.put_bytes(where, b"old")
    with pytest.raises(StorageError, match="the disk is full; free some space"):
        storage.put_bytes(where, b"x" * 400_000)
    assert storage.read_bytes(where) == b"old"
    assert [file.name for file in small_disk.iterdir()] == ["object"]


def test_a_full_disk_keeps_the_old_folder(small_disk: Path) -> None:
    target = small_disk / "folder"
    storage.write_folder(target, filler(b"old"))
    with pytest.raises(StorageError, match="the disk is full"):
        storage.write_folder(target, filler(b"x" * 400_000))
    assert (target / "a").read_bytes() == b"old"
    assert [file.name for file in small_disk.iterdir()] == ["folder"]


def test_a_tree_copied_to_a_full_disk_is_said_to_be_so(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"x" * 400_000)

    def copy(folder: Path) -> None:
        shutil.copytree(tmp_path / "source", folder / "b")

    with pytest.raises(StorageError, match="the disk is full"):
        storage.write_folder(small_disk / "folder", copy)
    assert list(small_disk.iterdir()) == []


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def first(folder: Path) -> None:
        (folder / "a").write_bytes(b"old")
        (folder / "b").write_bytes(b"old")

    def second(folder: Path) -> None:
        (folder / "a").write_bytes(b"new")

    def failing(folder: Path) -> None:
        second(folder)
        raise KeyboardInterrupt

    storage.write_folder(target, first)
    with pytest.raises(KeyboardInterrupt):
        storage.write_folder(target, failing)
    assert storage.list_files(str(target)) == ["a", "b"]
    assert (target / "a").read_bytes() == b"old"
    storage.write_folder(target, second)
    assert storage.list_files(str(target)) == ["a"]
    assert (target / "a").read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
    assert storage.folder_bytes(target) == 3


def test_a_failed_rename_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    storage.write_folder(target, filler(b"old"))
    replace = Path.replace

    def fail_once(self: Path, new: Path) -> Path:
        if self.name.startswith(".tmp-folder"):
            raise OSError("interrupted")
        return replace(self, new)

    monkeypatch.setattr(Path, "replace", fail_once)
    with pytest.raises(StorageError, match="interrupted"):
        storage.write_folder(target, filler(b"new"))
    assert (target / "a").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_place_that_cannot_be_written_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, new: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match="cannot be written; check its permissions"):
        storage.put_bytes(str(tmp_path / "a"), b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_is_not_local(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec_memory = pytest.importorskip("fsspec.implementations.memory")
    system = pafs.PyFileSystem(pafs.FSSpecHandler(fsspec_memory.MemoryFileSystem()))
    opened = storage.open_location

    def open_memory(location: str | Path) -> tuple[pafs.FileSystem, str]:
        text = str(location)
        return (system, text.removeprefix("memory:/")) if text.startswith("memory:/") else opened(text)

    monkeypatch.setattr(storage, "open_location", open_memory)
    storage.put_json("memory://bucket/run/candidates/a.json", {"a": 1})
    storage.put_json("memory://bucket/run/candidates/a.json", {"a": 2})
    assert storage.read_json("memory://bucket/run/candidates/a.json") == {"a": 2}
    assert storage.list_files("memory://bucket/run") == ["candidates/a.json"]
    assert storage.exists("memory://bucket/run/candidates/a.json")
    assert not storage.exists("memory://bucket/run/other")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("memory://bucket/run/other")


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert storage.sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea")
