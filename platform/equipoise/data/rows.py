"""Labelled texts in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from equipoise.errors import DataError


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts and the label of each, in the order of their source."""

    texts: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: Iterable[int]) -> Rows:
        """The rows at these positions, in the order given."""
        chosen = [int(index) for index in indices]
        return Rows([self.texts[i] for i in chosen], [self.labels[i] for i in chosen])


class RowCollector:
    """Checks values as they are read, and keeps them.

    Args:
        max_row_bytes: longest text, in bytes of UTF-8.
    """

    def __init__(self, max_row_bytes: int) -> None:
        self._max_row_bytes = max_row_bytes
        self._texts: list[str] = []
        self._labels: list[str] = []

    def add(self, where: str, text: object, label: object) -> None:
        """Keep one row: the text as it is, the label stripped.

        Raises:
            DataError: the text is no string or too long, or the label is null or no string or integer.
        """
        if not isinstance(text, str):
            what = "text is null" if text is None else "text is not a string"
            raise DataError(what, where=where, value=text, remedy="give every row a text, or remove the row")
        size = _utf8_bytes(text, where)
        if size > self._max_row_bytes:
            raise DataError(
                f"text has {size:,} bytes, more than data.max_row_bytes allows",
                where=where,
                value=self._max_row_bytes,
                remedy="shorten the text or raise data.max_row_bytes",
            )
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
        self._texts.append(text)
        self._labels.append(label.strip())

    def rows(self) -> Rows:
        """What was collected."""
        return Rows(self._texts, self._labels)


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
