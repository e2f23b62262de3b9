"""CoNLL columns: one word a line with its tag in the last column, a blank line between sentences."""

from __future__ import annotations

from collections.abc import Iterator

from pyarrow import fs as pafs

from equipoise.data.readers import OnFault, RawRow, decode_lines, refuse
from equipoise.errors import DataError

_DOCUMENT_START = "-DOCSTART-"


def read_conll(
    system: pafs.FileSystem,
    path: str,
    name: str,
    *,
    labelled: bool = True,
    on_fault: OnFault | None = None,
) -> Iterator[RawRow]:
    """(where, words, tags) of each sentence; columns are parted by white space.

    Args:
        labelled: whether each word must have a tag; where it need not, the first of any number of columns is
            all that is read, as many in each line of a sentence, and the tags are None.
        on_fault: called with the first fault of a sentence, which is then left out whole.

    Raises:
        DataError: a line is no UTF-8, or has another number of columns, and nobody takes the fault.
    """
    words: list[str] = []
    tags: list[str] = []
    faults: list[DataError] = []
    started = width = 1
    with system.open_input_stream(path) as stream:
        for number, line in enumerate(decode_lines(stream, name, faults.append), start=1):
            columns = line.split()
            if not columns or columns[0] == _DOCUMENT_START:
                if faults:
                    refuse(faults[0], on_fault)
                elif words:
                    yield f"{name}:{started}", words, tags if labelled else None
                words, tags, faults[:] = [], [], []
                continue
            if not words:
                started, width = number, len(columns)
            if labelled and len(columns) < 2:
                faults.append(
                    DataError(
                        "has a word without a tag",
                        where=f"{name}:{number}",
                        value=columns[0],
                        remedy="write a word and its tag on each line, a blank line between sentences",
                    )
                )
            elif not labelled and len(columns) != width:
                # A tag that is missing, a word with a space in it, or no columns at all but running text.
                faults.append(
                    DataError(
                        f"has {len(columns)} columns where the sentence's first line has {width}",
                        where=f"{name}:{number}",
                        value=line.strip(),
                        remedy="write one word a line, a blank line between sentences",
                    )
                )
            words.append(columns[0])
            tags.append(columns[-1])
    if faults:
        refuse(faults[0], on_fault)
    elif words:
        yield f"{name}:{started}", words, tags if labelled else None
