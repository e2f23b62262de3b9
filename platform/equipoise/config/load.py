"""Reading a run config; every mistake becomes one line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from equipoise.config.run import RunConfig
from equipoise.config.section import Section
from equipoise.errors import ConfigError

S = TypeVar("S", bound=Section)

MAX_CONFIG_BYTES = 1_000_000


def load_config(path: str | Path) -> RunConfig:
    """Read and check a run config.

    Raises:
        ConfigError: the file cannot be read, is no YAML mapping, or has a wrong key or value.
    """
    return validate_config(RunConfig, read_yaml(path), where=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping of at most 1 MB."""
    file = Path(path)
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError("config file is too large", where=str(path), remedy="keep it under 1 MB")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), remedy="write one with `equipoise init`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as text: {error}", where=str(path)) from error
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"not valid YAML: {problem}", where=f"{path}{line}") from error
    if not isinstance(loaded, dict):
        raise ConfigError("not a mapping of keys to values", where=str(path), remedy="see `equipoise init`")
    return loaded


def validate_config(kind: type[S], values: dict[str, Any], where: str) -> S:
    """Check values against a section; the first mistake is raised as one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _one_line(error, kind, where) from error


def _one_line(error: ValidationError, kind: type[Section], where: str) -> ConfigError:
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    more = error.error_count() - 1
    suffix = f" (and {more} more)" if more else ""
    spot = f"{where}: {path}" if path else where
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _keys_at(kind, first["loc"][:-1]), n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "remove it, or see `equipoise init`"
        return ConfigError(f"unknown key{suffix}", where=spot, value=first["input"], remedy=remedy)
    if first["type"] == "missing":
        return ConfigError(f"required key is missing{suffix}", where=spot, remedy="add it")
    message = first["msg"][0].lower() + first["msg"][1:]
    return ConfigError(f"wrong value{suffix}", where=spot, value=first["input"], remedy=message)


def _keys_at(kind: type[Section], path: tuple[int | str, ...]) -> list[str]:
    """The keys that a nested section knows."""
    current: Any = kind
    for part in path:
        field = getattr(current, "model_fields", {}).get(str(part))
        if field is None:
            return []
        current = field.annotation
    return list(getattr(current, "model_fields", {}))
