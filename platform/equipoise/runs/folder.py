"""The run folder: one object a record, each put once and whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from equipoise import storage
from equipoise.errors import RunFolderError
from equipoise.runs.records import Candidate


class RunFolder:
    """Names and records of one run, at a local path or any pyarrow URI.

    Holds `config.json`, `data.json`, `teacher/`, `students/<structure>/`, `models/<hash>/`,
    `candidates/<hash>.json`, `candidates/<hash>.predictions.npy`, `screened/<hash>.json`,
    `frontier.json`, `choice.json`, `bundle/`, `test.json`, `served.json`,
    `ledger/<writer>/<seq>.jsonl`, `report.html` and `logs/`.
    """

    def __init__(self, location: str | Path) -> None:
        text = str(location)
        self.location = text if storage.is_uri(text) else str(Path(text).expanduser().absolute())

    def path(self, *parts: str) -> str:
        """Location of a member."""
        return "/".join([self.location.rstrip("/"), *parts])

    def local(self, *parts: str) -> Path:
        """Local path of a member that programs write files into.

        Raises:
            RunFolderError: the run folder is not on a local file system.
        """
        if storage.is_uri(self.location):
            raise RunFolderError(
                "models are written to a local run folder for now",
                where=self.location,
                remedy="give a local path, and copy the finished folder",
            )
        return Path(self.path(*parts))

    def has(self, *parts: str) -> bool:
        """Whether a record stands there."""
        return storage.exists(self.path(*parts))

    def read(self, *parts: str) -> Any:
        """A JSON record.

        Raises:
            RunFolderError: it is not there.
        """
        try:
            return storage.read_json(self.path(*parts))
        except FileNotFoundError:
            raise RunFolderError(
                f"has no {'/'.join(parts)}",
                where=self.location,
                remedy="is this a run folder, and did the run get that far?",
            ) from None

    def put(self, value: Any, *parts: str) -> None:
        """Write a JSON record, whole or not at all."""
        storage.put_json(self.path(*parts), value)

    def candidates(self) -> list[Candidate]:
        """Every finished candidate, by recipe hash.

        Raises:
            RunFolderError: a record is not a candidate's.
        """
        names = storage.list_files(self.path("candidates"))
        return [self._candidate(name) for name in names if name.endswith(".json")]

    def _candidate(self, name: str) -> Candidate:
        try:
            return Candidate.model_validate(self.read("candidates", name))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise RunFolderError(
                f"is not a candidate: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                where=self.path("candidates", name),
                remedy="delete it, and the run measures that candidate again",
            ) from error

    def claim(self, config: dict[str, Any], changeable: Iterable[str] = ()) -> bool:
        """Bind the folder to a config, or check that it is bound to this one.

        Args:
            config: the config as JSON values.
            changeable: sections and dotted keys that may differ; the folder takes the new ones.

        Returns:
            Whether the folder held an earlier try of the same run.

        Raises:
            RunFolderError: the folder belongs to another config.
        """
        config = json.loads(json.dumps(config))
        if not self.has("config.json"):
            self.put(config, "config.json")
            return False
        held = self.read("config.json")
        kept = set(changeable)
        differing = [key for key in _differences(held, config) if not {key, key.partition(".")[0]} & kept]
        if differing:
            key = differing[0]
            raise RunFolderError(
                f"belongs to a run with another config: {key} differs",
                where=self.location,
                remedy="choose another folder with --out, or delete this one",
            )
        if held != config:
            self.put(config, "config.json")
        return True


def _differences(left: Any, right: Any, path: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted(left.keys() | right.keys())
        return [
            found
            for key in keys
            for found in _differences(left.get(key), right.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if left == right else [path or "config"]
