"""The records of a finished run, carried from a cluster through whatever can carry text.

    python -m equipoise.cluster.results RUN_FOLDER

prints them as a compressed archive in base64 between two marks; `read_archive` turns a log with that
in it back into files. Weights of teacher, students and candidates stay where they are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import TextIO

from equipoise import storage
from equipoise.errors import EquipoiseError, RunFolderError, ServiceError

FETCHED = "fetched.json"
"""Marks a folder as a copy, which may be replaced by a newer one."""

MAX_BYTES = 200 * 2**20

_BEGIN, _END = "equipoise-archive-begin", "equipoise-archive-end"
_KEPT = ("bundle", "candidates", "ledger", "logs")
_LINE = 76 * 1024


def print_archive(folder: Path, out: TextIO) -> None:
    """Write a run folder's records to a stream of text.

    Raises:
        RunFolderError: there is no run folder, or its records are above 200 MiB.
    """
    if not (folder / "config.json").is_file():
        raise RunFolderError("is no run folder", where=str(folder))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_record(folder, path)]
    total = sum(path.stat().st_size for path in files)
    if total > MAX_BYTES:
        raise RunFolderError(
            f"its records take {total / 2**20:.0f} MiB, more than can be carried through a log",
            where=str(folder),
            remedy="keep run folders on storage that you can read from here too",
        )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=3) as archive:
        for path in files:
            archive.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    content = packed.getvalue()
    out.write(f"{_BEGIN} {len(content)} {hashlib.sha256(content).hexdigest()}\n")
    text = base64.b64encode(content).decode()
    for start in range(0, len(text), _LINE):
        out.write(text[start : start + _LINE] + "\n")
    out.write(f"{_END}\n")
    out.flush()


def read_archive(log: str) -> bytes:
    """The archive in a log, whole and as its checksum says.

    Raises:
        ServiceError: there is none, or it did not arrive whole.
    """
    _, found, rest = log.partition(f"{_BEGIN} ")
    body, ended, _ = rest.partition(_END)
    header, _, text = body.partition("\n")
    if not found or not ended:
        raise ServiceError("the results did not arrive whole", remedy="fetch them again")
    size, _, digest = header.strip().partition(" ")
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ServiceError(f"the results arrived damaged: {error}", remedy="fetch them again") from error
    if str(len(content)) != size or hashlib.sha256(content).hexdigest() != digest:
        raise ServiceError("the results arrived damaged: their SHA-256 differs", remedy="fetch them again")
    return content


def unpack_archive(content: bytes, target: Path, source: dict[str, str]) -> None:
    """Put a fetched run folder in place at once.

    Args:
        content: as `read_archive` gives it.
        target: the local folder; a copy that was fetched earlier is replaced.
        source: where it comes from, kept beside it.

    Raises:
        RunFolderError: something else stands at `target`.
        ServiceError: the archive names a file outside of itself.
    """
    require_replaceable(target)

    def fill(folder: Path) -> None:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            try:
                archive.extractall(folder, filter="data")
            except tarfile.TarError as error:
                raise ServiceError(f"the results cannot be unpacked: {error}") from error
        (folder / FETCHED).write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")

    storage.write_folder(target, fill)


def require_replaceable(target: Path) -> None:
    """Raise RunFolderError where a folder stands that was not fetched."""
    if target.exists() and not (target / FETCHED).is_file() and any(target.iterdir()):
        raise RunFolderError(
            "holds something that was not fetched from a cluster",
            where=str(target),
            remedy="choose another folder with --out",
        )


def _is_record(folder: Path, path: Path) -> bool:
    parts = path.relative_to(folder).parts
    if any(part.startswith(".") for part in parts):
        return False
    return parts[0] in _KEPT or (len(parts) == 1 and path.suffix in (".json", ".html"))


def main(arguments: list[str]) -> int:
    """Print the archive of the run folder named on the command line."""
    try:
        [folder] = arguments
        print_archive(Path(folder).expanduser(), sys.stdout)
    except EquipoiseError as error:
        sys.stderr.write(f"equipoise: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
