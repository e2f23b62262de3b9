"""The files of this machine that a run config names, and where they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from equipoise import storage
from equipoise.config import RunConfig
from equipoise.errors import InputError

_KEYS = (
    ("data", "train"),
    ("data", "test"),
    ("data", "validation"),
    ("model", "teacher"),
    ("cost", "prices"),
)


def local_files(config: RunConfig) -> dict[str, Path]:
    """What a config names on this machine's disk, by the field's path; URIs and samples are left out.

    Raises:
        InputError: a named file is not there.
    """
    values = config.model_dump(mode="json")
    found = {}
    for section, key in _KEYS:
        value = values.get(section, {}).get(key)
        if isinstance(value, str) and not storage.is_uri(value):
            path = Path(value).expanduser().absolute()
            found[f"{section}.{key}"] = path
    return found


def require_present(files: dict[str, Path]) -> None:
    """Raise InputError for the first file that is not there."""
    for field, path in files.items():
        if not path.exists():
            raise InputError("no such file", where=field, value=str(path))


def with_paths(config: RunConfig, place: Callable[[str, Path], str]) -> dict[str, Any]:
    """The config as JSON values, each local file replaced by where `place(field, path)` says it will be."""
    values: dict[str, Any] = config.model_dump(mode="json")
    for field, path in local_files(config).items():
        section, _, key = field.partition(".")
        values[section][key] = place(field, path)
    return values
