"""Whole-object reads and atomic writes on any pyarrow file system.

A local write goes to a temporary name in the same folder, is flushed to the disk and renamed; an
object store's put is whole by itself. A reader therefore sees the old object or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pyarrow import fs as pafs

from equipoise.errors import InputError, StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors that mean that a disk, a quota or a file is full."""
_BLOCK_BYTES = 1 << 20


def is_uri(location: str) -> bool:
    """Whether a location names a file system by scheme, as `s3://bucket/key` does."""
    return "://" in location


def open_location(location: str | Path) -> tuple[pafs.FileSystem, str]:
    """The file system and the path within it of a local path or a pyarrow URI."""
    text = str(location)
    try:
        if is_uri(text):
            opened: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(text)
            return opened
        return pafs.LocalFileSystem(), str(Path(text).expanduser().absolute())
    except (OSError, ValueError) as error:
        raise InputError(f"not a usable location: {error}", where=text) from error


def read_bytes(location: str) -> bytes:
    """The whole object; FileNotFoundError where there is none."""
    system, path = open_location(location)
    with system.open_input_stream(path) as stream:
        return bytes(stream.read())


def download(location: str, target: Path) -> None:
    """Copy one object to a local file, block by block; FileNotFoundError where there is none."""
    system, path = open_location(location)
    with system.open_input_stream(path) as stream, target.open("wb") as file:
        while block := stream.read(_BLOCK_BYTES):
            file.write(block)


def exists(location: str) -> bool:
    """Whether a file stands there."""
    system, path = open_location(location)
    return bool(system.get_file_info(path).type == pafs.FileType.File)


def list_files(location: str) -> list[str]:
    """The files anywhere under a folder, relative to it, sorted; empty where there is none."""
    system, path = open_location(location)
    found = system.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    names = (info.path[len(path) :].lstrip("/") for info in found if info.type == pafs.FileType.File)
    return sorted(name for name in names if not any(part.startswith(".tmp-") for part in name.split("/")))


def list_folders(location: str) -> list[str]:
    """Names of the folders directly under a folder, sorted; empty where there is none."""
    system, path = open_location(location)
    found = system.get_file_info(pafs.FileSelector(path, recursive=False, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)


def which_exist(folder: str, names: Sequence[str]) -> set[str]:
    """Those of some files below a folder that stand there, asked for in one go."""
    system, path = open_location(folder)
    found = system.get_file_info([f"{path.rstrip('/')}/{name}" for name in names])
    return {name for name, info in zip(names, found, strict=True) if info.type == pafs.FileType.File}


def put_bytes(location: str, content: bytes) -> None:
    """Write one object, whole or not at all.

    Raises:
        StorageError: the disk is full or the store refused the write; what stood there stays.
    """
    system, path = open_location(location)
    if not isinstance(system, pafs.LocalFileSystem):
        with storage_faults(location), system.open_output_stream(path) as stream:
            stream.write(content)
        return
    with storage_faults(location):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".tmp-{uuid.uuid4().hex}"
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove(location: str) -> None:
    """Remove one object; nothing happens where there is none.

    Raises:
        StorageError: the store refused it.
        InputError: it is not allowed.
    """
    system, path = open_location(location)
    with storage_faults(location), contextlib.suppress(FileNotFoundError):
        system.delete_file(path)


def put_json(location: str, value: Any) -> None:
    """Write JSON, whole or not at all."""
    put_bytes(location, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(location: str) -> Any:
    """Read JSON; InputError where it is not JSON."""
    content = read_bytes(location)
    try:
        return json.loads(content)
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", where=location) from error


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Put a local folder in place at once: `fill` writes a sibling, which then takes the name.

    The old folder stays whole until the new one is complete, whatever interrupts the writing.

    Raises:
        StorageError: the disk is full.
    """
    with storage_faults(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.parent / f".tmp-{target.name}-{uuid.uuid4().hex}"
        retired = target.parent / f".tmp-old-{uuid.uuid4().hex}"
        staged.mkdir()
        try:
            fill(staged)
            for file in staged.rglob("*"):
                if file.is_file():
                    with file.open("rb") as opened:
                        os.fsync(opened.fileno())
            if target.exists():
                target.replace(retired)
            staged.replace(target)
            shutil.rmtree(retired, ignore_errors=True)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            if retired.exists() and not target.exists():
                retired.replace(target)
            raise


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_cache(kind: str) -> Path:
    """Where things of a kind are kept in the user's cache (`XDG_CACHE_HOME`); the folder may be missing."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equipoise" / kind


def folder_bytes(path: Path) -> int:
    """Bytes of all files below a local folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@contextlib.contextmanager
def storage_faults(where: str) -> Iterator[None]:
    """Turn what the system says of a write into an error of ours.

    Raises:
        StorageError: the disk is full, or the write failed otherwise.
        InputError: writing there is not allowed.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if _is_full(error):
            raise StorageError(
                "the disk is full", where=where, remedy="free some space and run again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError("cannot be written", where=where, remedy="check its permissions") from error
        raise StorageError(f"cannot be written: {error}", where=where) from error


def _is_full(error: OSError) -> bool:
    if isinstance(error, shutil.Error):
        # A copied tree gathers its errors as text; their numbers are lost.
        return any(f"[Errno {number}]" in str(error) for number in FULL)
    return error.errno in FULL
