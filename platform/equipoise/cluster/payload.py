"""What a job on a running Ray cluster brings along: Equipoise itself, the config, and the files it names."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import equipoise
from equipoise.cluster.run_files import local_files, require_present, with_paths
from equipoise.config import RunConfig
from equipoise.errors import InputError

MAX_UPLOAD_BYTES = 100 * 2**20
"""What Ray's dashboard takes in one upload."""

RUN_FILE = "run.yaml"

# A package whose files carry the time of packing would have another name each time.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PACKAGES = ("equipoise", "equipoise_serving")
_LEFT_OUT = ("__pycache__", ".mypy_cache", ".ruff_cache")


@dataclass(frozen=True)
class Payload:
    """A working directory, as a zip file."""

    file: Path
    entries: dict[str, int]
    """Uncompressed bytes by name."""

    @property
    def bytes(self) -> int:
        """Of the zip file."""
        return self.file.stat().st_size


def write_payload(config: RunConfig, target: Path) -> Payload:
    """Write the working directory of a run as a zip; the same content gives the same bytes.

    Raises:
        InputError: a file that the config names is absent, or the whole is above Ray's 100 MiB.
    """
    files = local_files(config)
    require_present(files)
    sources: dict[str, Path] = {}
    for package in _PACKAGES:
        root = _package_root(package)
        sources.update({f"{package}/{name}": root / name for name in _tree(root)})

    def place(field: str, path: Path) -> str:
        home = f"inputs/{field}"
        if path.is_dir():
            sources.update({f"{home}/{name}": path / name for name in _tree(path)})
            return home
        sources[f"{home}/{path.name}"] = path
        return f"{home}/{path.name}"

    values = with_paths(config, place)
    total = sum(path.stat().st_size for path in sources.values())
    # Text shrinks about fivefold: what is above ten times the bound is not worth packing.
    if total > 10 * MAX_UPLOAD_BYTES:
        raise _too_large(total, sources)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, path in sorted(sources.items()):
            _add(archive, name, path.read_bytes())
        _add(archive, RUN_FILE, yaml.safe_dump(_portable(values), sort_keys=False).encode())
    if target.stat().st_size > MAX_UPLOAD_BYTES:
        raise _too_large(target.stat().st_size, sources)
    return Payload(target, {name: path.stat().st_size for name, path in sorted(sources.items())})


def _portable(values: dict[str, Any]) -> dict[str, Any]:
    """The config without the place it came from; the run folder is given on the command line."""
    return {key: value for key, value in values.items() if key != "output"}


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _tree(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not any(part in _LEFT_OUT for part in path.parts)
    )


def _package_root(name: str) -> Path:
    """Where a package lies; found without importing it, since Serve reads its flags at import."""
    from importlib.util import find_spec

    found = find_spec(name)
    if found is None or found.origin is None:
        raise InputError(f"the package {name} is not installed here", where=str(equipoise.__file__))
    return Path(found.origin).parent


def _too_large(size: int, sources: dict[str, Path]) -> InputError:
    largest = max(sources, key=lambda name: sources[name].stat().st_size)
    return InputError(
        f"{size / 2**20:.0f} MiB to upload, and Ray takes 100 MiB; the largest file is "
        f"{sources[largest]} ({sources[largest].stat().st_size / 2**20:.0f} MiB)",
        where="working directory",
        remedy="put data and models where the cluster can read them, and name them by URI or path there",
    )
