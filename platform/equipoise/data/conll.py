"""CoNLL columns: one word a line with its tag in the last column, a blank line between sentences."""

from __future__ import annotations

from collections.abc import Iterator

from pyarrow import fs as pafs

from equipoise.data.readers import RawRow, decode_lines
from equipoise.errors import DataError

_DOCUMENT_START = "-DOCSTART-"


def read_conll(system: pafs.FileSystem, path: str, name: str) -> Iterator[RawRow]:
    """(where, words, tags) of each sentence; columns are parted by white space.

    Raises:
        DataError: a line is no UTF-8, or has one column only.
    """
    words: list[str] = []
    tags: list[str] = []
    started = 1
    with system.open_input_stream(path) as stream:
        for number, line in enumerate(decode_lines(stream, name), start=1):
            columns = line.split()
            if not columns or columns[0] == _DOCUMENT_START:
                if words:
                    yield f"{name}:{started}", words, tags
                words, tags = [], []
                continue
            if len(columns) < 2:
                raise DataError(
                    "has a word without a tag",
                    where=f"{name}:{number}",
                    value=columns[0],
                    remedy="write a word and its tag on each line, a blank line between sentences",
                )
            if not words:
                started = number
            words.append(columns[0])
            tags.append(columns[-1])
    if words:
        yield f"{name}:{started}", words, tags
