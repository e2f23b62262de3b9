"""Inputs without labels, one after the other; nothing of a source but the row at hand is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pyarrow import fs as pafs
from pyarrow import parquet

from equipoise import storage
from equipoise.data.layout import Layout, is_empty
from equipoise.data.rows import check_input
from equipoise.data.samples import SAMPLE_SCHEME
from equipoise.data.sources import open_rows
from equipoise.errors import DataError

_CHUNK_BYTES = 1 << 22


class Columns(NamedTuple):
    """Where an input stands in a row, and how long it may be."""

    text: str = "text"
    max_row_bytes: int = 262_144


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

    def refuse(error: DataError) -> None:
        on_bad(BadRow(error.where or location, error.what))

    for where, value, _ in open_rows(location, columns.text, columns.text, layout, on_fault=refuse):
        try:
            checked = check_input(layout, where, value, columns.max_row_bytes)
        except DataError as error:
            refuse(error)
            continue
        if is_empty(checked):
            on_bad(BadRow(where, "is empty"))
            continue
        yield where, checked


def count_rows(location: str, layout: Layout) -> int | None:
    """About how many rows a source has, for progress; None where that takes reading it.

    Lines are counted, so a CSV whose texts hold line breaks has fewer rows.
    """
    if location.startswith(SAMPLE_SCHEME) or layout != "text":
        return None
    try:
        system, path = storage.open_location(location)
        if PurePosixPath(path).suffix.lower() == ".parquet":
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
