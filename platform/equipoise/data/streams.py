"""Inputs without labels, one after the other; nothing of a source but the row at hand is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pyarrow import fs as pafs
from pyarrow import parquet

from equipoise import storage
from equipoise.data.hub import HUB_SCHEME, find_hub_files
from equipoise.data.layout import Layout, is_empty
from equipoise.data.readers import OnFault
from equipoise.data.rows import check_input
from equipoise.data.samples import SAMPLE_SCHEME
from equipoise.data.sources import EXTENSIONS, open_prompts, open_rows, reading_faults
from equipoise.errors import DataError

_CHUNK_BYTES = 1 << 22


class Columns(NamedTuple):
    """Where an input stands in a row, and how long it may be."""

    text: str = "text"
    max_row_bytes: int = 262_144
    prompt: str | None = None
    """What the text follows, of the layout "prompt" alone."""


class BadRow(NamedTuple):
    """A row that cannot be used: where it stands, and why."""

    where: str
    reason: str


def read_inputs(
    location: str, layout: Layout, columns: Columns, on_bad: Callable[[BadRow], None]
) -> Iterator[tuple[str, Any]]:
    """(where, input) of each usable row, in the order of the source.

    Args:
        on_bad: called with each row that is not usable, where it would have come.

    Raises:
        DataError: the source as a whole cannot be read.
        ServiceError: a remote store failed.
    """

    def leave_out(fault: DataError) -> None:
        on_bad(BadRow(fault.where or location, fault.what))

    with reading_faults(location):
        for where, value in _open_inputs(location, layout, columns, leave_out):
            try:
                checked = check_input(layout, where, value, columns.max_row_bytes)
            except DataError as error:
                leave_out(error)
                continue
            if is_empty(checked):
                on_bad(BadRow(where, "is empty"))
                continue
            yield where, checked


def _open_inputs(
    location: str, layout: Layout, columns: Columns, on_fault: OnFault
) -> Iterator[tuple[str, object]]:
    if layout == "prompt":
        for where, prompt, text in open_prompts(location, columns.text, columns.prompt, on_fault):
            yield where, (prompt, text)
        return
    for where, value, _ in open_rows(location, columns.text, None, layout, on_fault=on_fault):
        yield where, value


def count_rows(location: str, layout: Layout) -> int | None:
    """About how many rows a source has, for progress; None where that takes reading it.

    Lines are counted, so a CSV whose texts hold line breaks has fewer rows.
    """
    if location.startswith(SAMPLE_SCHEME):
        return None
    if location.startswith(HUB_SCHEME):
        return sum(int(parquet.read_metadata(file).num_rows) for file in find_hub_files(location))
    try:
        system, path = storage.open_location(location)
        extension = PurePosixPath(path).suffix.lower()
        if layout == "image" or extension not in EXTENSIONS["text"]:
            return None
        if extension == ".parquet":
            with system.open_input_file(path) as file:
                return int(parquet.read_metadata(file).num_rows)
        return _count_lines(system, path)
    except (OSError, ValueError):
        return None


def _count_lines(system: pafs.FileSystem, path: str) -> int:
    lines = 0
    with system.open_input_stream(path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            lines += chunk.count(b"\n")
    return lines
