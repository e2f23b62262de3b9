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

from equipoise.config.model import ModelConfig
from equipoise.data import Layout
from equipoise.errors import ConfigError
from equipoise.tasks.answers import Answers

Arrays = dict[str, NDArray[Any]]


class Task(Protocol):
    """Turns inputs into arrays for an engine, and an engine's arrays into answers.

    A *place* is where the model is asked something: a row of a classifier, a word of a tagger, a
    token of a language model. Metrics are sums over rows of what `tally` counts, so that any of them
    can be resampled.
    """

    name: ClassVar[str]
    layout: ClassVar[Layout]
    """What a row of the family is: decides which readers and corruptions fit."""
    metric_name: ClassVar[str]
    """The metric that the search maximizes; 0 to 1."""
    model_class: ClassVar[str]
    """The class of transformers that loads the family's pretrained models."""
    files: ClassVar[tuple[str, ...]]
    """What a pretrained model's folder must hold; shards and their index stand for `model.safetensors`."""
    ragged: ClassVar[bool]
    """Whether the second axis of the arrays is padded to the longest row."""
    labels: tuple[str, ...]
    temperature: float
    inputs: tuple[str, ...]
    """Names of the arrays that the model takes; `encode` may give more, for `read` and `decode`."""

    @classmethod
    def create(cls, folder: Path, labels: Sequence[str], settings: ModelConfig) -> Task:
        """Build from a pretrained model's folder and the config's `model` section."""
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

    def examples(self) -> list[Any]:
        """Two inputs of different size, to trace and to warm up with."""
        ...

    def from_text(self, text: str) -> Any:
        """The input that a client sent as a string.

        Raises:
            DataError: the string is no input of this family.
        """
        ...

    def to_text(self, value: Any) -> str:
        """An input as the string that a client sends."""
        ...

    def encode(self, inputs: Sequence[Any]) -> Arrays:
        """Inputs to arrays with the batch as first axis, padded to the longest row."""
        ...

    def lengths(self, inputs: Sequence[Any]) -> NDArray[np.int64]:
        """Cost of each input (tokens), by which batches are bucketed; shape (batch,)."""
        ...

    def targets(self, arrays: Arrays, labels: Sequence[Any]) -> NDArray[np.int64]:
        """Class numbers for encoded inputs: (batch,), or (batch, longest) with IGNORED where none is asked.

        In the order of the axes, the places that are not IGNORED are those that `read` answers.
        """
        ...

    def read(self, outputs: Arrays, arrays: Arrays) -> Answers:
        """Engine outputs for encoded inputs to the answers at each place, rows counted from 0."""
        ...

    def decode(self, outputs: Arrays, arrays: Arrays, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Engine outputs to one answer a row, as JSON; `label`, or `entities`, and scores."""
        ...

    def tally(self, answers: Answers, truth: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
        """Counts of each row, shape (rows, counts), whose sums `metric` takes; truth is (places,)."""
        ...

    def metric(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The metric from summed counts of shape (..., counts); 0 where there is nothing to count."""
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


def _token_classification() -> type[Task]:
    from equipoise.tasks.token_classification import TokenClassification

    return TokenClassification


def _image_classification() -> type[Task]:
    from equipoise.tasks.image_classification import ImageClassification

    return ImageClassification


def _text_generation() -> type[Task]:
    from equipoise.tasks.text_generation import TextGeneration

    return TextGeneration


register("image_classification", _image_classification)
register("text_classification", _text_classification)
register("text_generation", _text_generation)
register("token_classification", _token_classification)
