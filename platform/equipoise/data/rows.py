"""Examples: in memory while they are few, on disk when they are many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.data.layout import Layout
from equipoise.data.spool import Spool, settle, take_values
from equipoise.errors import DataError

SPOOL_BYTES = 256 << 20
"""Inputs and labels of one source that are held in memory; a larger source goes to disk."""

_OBJECT_BYTES = 60
"""About what Python adds to a string or an array."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs and the label of each, in the order of their source; the layout says what they are."""

    inputs: Sequence[Any]
    labels: Sequence[Any]

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, indices: Iterable[int]) -> Rows:
        """The rows at these positions, in the order given."""
        chosen = [int(index) for index in indices]
        return Rows(take_values(self.inputs, chosen), take_values(self.labels, chosen))

    def settled(self, folder: Path) -> Rows:
        """The same rows; what stands on disk is copied to a folder that other nodes see."""
        return Rows(settle(self.inputs, folder), settle(self.labels, folder))


class RowCollector:
    """Checks values as they are read, and keeps them.

    Args:
        layout: what a row must be.
        max_row_bytes: longest text, in bytes of UTF-8.
    """

    def __init__(self, layout: Layout, max_row_bytes: int) -> None:
        self._check = {
            "text": self._text,
            "words": self._words,
            "prompt": self._prompt,
            "image": self._image,
        }[layout]
        self._layout: Layout = layout
        self._max_row_bytes = max_row_bytes
        self._inputs: list[Any] = []
        self._labels: list[Any] = []
        self._bytes = 0
        self._spool: Spool | None = None

    def add(self, where: str, value: object, label: object) -> None:
        """Keep one row: the input as it is, the label stripped.

        Raises:
            DataError: the input or the label is not what the layout asks for.
        """
        checked = self._check(where, value, label)
        self._inputs.append(checked[0])
        self._labels.append(checked[1])
        self._bytes += _held_bytes(checked[0])
        if self._bytes > SPOOL_BYTES:
            self._spool = self._spool or Spool(self._layout)
            self._flush(self._spool)

    def rows(self) -> Rows:
        """What was collected; nothing may be added afterwards."""
        if self._spool is None:
            return Rows(self._inputs, self._labels)
        self._flush(self._spool)
        return Rows(*self._spool.close())

    def _flush(self, spool: Spool) -> None:
        spool.add(self._inputs, self._labels)
        self._inputs, self._labels, self._bytes = [], [], 0

    def _text(self, where: str, value: object, label: object) -> tuple[str, str]:
        return self._bounded_text(where, value, "text"), _label(where, label)

    def _words(self, where: str, value: object, label: object) -> tuple[list[str], list[str]]:
        words, tags = _strings(where, value, "words"), _strings(where, label, "tags")
        if len(words) != len(tags):
            raise DataError(
                f"has {len(words)} words and {len(tags)} tags",
                where=where,
                remedy="give every word one tag",
            )
        self._bounded_text(where, " ".join(words), "sentence")
        return words, [tag.strip() for tag in tags]

    def _prompt(self, where: str, value: object, label: object) -> tuple[tuple[str, str], str]:
        """A prompt and its completion; without a prompt the text stands alone."""
        prompt = "" if value is None else self._bounded_text(where, value, "prompt")
        return (prompt, self._bounded_text(where, label, "text")), ""

    def _image(self, where: str, value: object, label: object) -> tuple[Any, str]:
        return value, _label(where, label)

    def _bounded_text(self, where: str, value: object, what: str) -> str:
        if not isinstance(value, str):
            fault = f"{what} is null" if value is None else f"{what} is not a string"
            raise DataError(
                fault, where=where, value=value, remedy=f"give every row a {what}, or remove the row"
            )
        size = _utf8_bytes(value, where)
        if size > self._max_row_bytes:
            raise DataError(
                f"{what} has {size:,} bytes, more than data.max_row_bytes allows",
                where=where,
                value=self._max_row_bytes,
                remedy=f"shorten the {what} or raise data.max_row_bytes",
            )
        return value


def check_input(layout: Layout, where: str, value: object, max_row_bytes: int) -> Any:
    """An input that comes without a label; of the layout "words" it may be a text too.

    Args:
        value: of the layout "prompt" a text, or a prompt (None where there is none) and what follows it.

    Raises:
        DataError: it is not what the layout asks for.
    """
    if layout == "words" and isinstance(value, str):
        layout = "text"
    collector = RowCollector(layout, max_row_bytes)
    if layout == "words":
        collector.add(where, value, ["O"] * len(value) if isinstance(value, Sequence) else value)
    elif layout == "prompt":
        collector.add(where, *(value if isinstance(value, tuple) else (None, value)))
    else:
        collector.add(where, value, "unlabelled")
    return collector.rows().inputs[0]


def _held_bytes(value: Any) -> int:
    """About what an input takes in memory."""
    if isinstance(value, str):
        return len(value) + _OBJECT_BYTES
    if hasattr(value, "nbytes"):
        return int(value.nbytes) + _OBJECT_BYTES
    return sum(map(len, value)) + _OBJECT_BYTES * (1 + len(value))


def _label(where: str, label: object) -> str:
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if label is None or (isinstance(label, str) and not label.strip()):
        raise DataError("label is null", where=where, remedy="give every row a label, or remove the row")
    if not isinstance(label, str):
        raise DataError(
            "label is not a string or an integer",
            where=where,
            value=label,
            remedy="write labels as strings",
        )
    _utf8_bytes(label, where)
    return label.strip()


def _strings(where: str, value: object, what: str) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(
            f"{what} are not a list", where=where, value=value, remedy=f"give every row a list of {what}"
        )
    for item in value:
        if not isinstance(item, str) or not item.strip():
            raise DataError(
                f"one of its {what} is not a string, or empty",
                where=where,
                value=item,
                remedy=f"write {what} as strings",
            )
        _utf8_bytes(item, where)
    return list(value)


def _utf8_bytes(value: str, where: str) -> int:
    try:
        return len(value.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            "holds half of a surrogate pair, which is no Unicode text",
            where=where,
            value=value,
            remedy="write the character whole, or remove it",
        ) from error
