"""What a task family must offer, and the register of families.

A family is one file that defines a class of this shape and calls `register`. Packages outside
Equipoise add theirs through the entry-point group `equipoise.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import ConfigError

Arrays = dict[str, NDArray[Any]]


class Task(Protocol):
    """Turns inputs into arrays for an engine, and an engine's arrays into answers."""

    name: ClassVar[str]
    metric_name: ClassVar[str]
    labels: tuple[str, ...]
    temperature: float

    @classmethod
    def create(cls, folder: Path, labels: Sequence[str], max_length: int) -> Task:
        """Build from a pretrained model's folder."""
        ...

    @classmethod
    def load(cls, folder: Path, description: dict[str, Any]) -> Task:
        """Build from a bundle's preprocessor files and its `task` entry; imports no torch."""
        ...

    def describe(self) -> dict[str, Any]:
        """The JSON entry that `load` builds from."""
        ...

    def save(self, folder: Path) -> None:
        """Write the preprocessor files that `load` reads."""
        ...

    def encode(self, inputs: Sequence[Any]) -> Arrays:
        """Inputs to arrays with the batch as first axis, padded to the longest row."""
        ...

    def lengths(self, inputs: Sequence[Any]) -> NDArray[np.int64]:
        """Cost of each input (tokens), by which batches are bucketed; shape (batch,)."""
        ...

    def decode(self, outputs: Arrays) -> list[dict[str, Any]]:
        """Engine outputs to one answer a row: `{"label": str, "score": float, "scores": {...}}`."""
        ...


_FAMILIES: dict[str, Callable[[], type[Task]]] = {}


def register(name: str, load: Callable[[], type[Task]]) -> None:
    """Add a family under a name; `load` imports its class when it is first needed."""
    _FAMILIES[name] = load


def find_task(name: str) -> type[Task]:
    """The family's class.

    Raises:
        ConfigError: no family of that name is registered here.
    """
    for entry in entry_points(group="equipoise.tasks"):
        _FAMILIES.setdefault(entry.name, entry.load)
    if name not in _FAMILIES:
        raise ConfigError(
            "no such task family", where="task", value=name, remedy=f"one of {', '.join(sorted(_FAMILIES))}"
        )
    return _FAMILIES[name]()


def _text_classification() -> type[Task]:
    from equipoise.tasks.text_classification import TextClassification

    return TextClassification


register("text_classification", _text_classification)
