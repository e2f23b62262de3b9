"""Where examples come from: .csv, .jsonl and .parquet on any pyarrow file system, and samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from pyarrow import fs as pafs

from equipoise import storage
from equipoise.data.readers import RawRow, read_csv, read_jsonl, read_parquet
from equipoise.data.rows import RowCollector, Rows
from equipoise.data.samples import SAMPLE_SCHEME, read_sample
from equipoise.errors import DataError, ServiceError

MAX_FILE_BYTES = 2_000_000_000
"""Largest file that is read into memory."""

EXTENSIONS = (".csv", ".jsonl", ".json", ".parquet")


def load_rows(location: str, text_column: str, label_column: str, max_row_bytes: int) -> Rows:
    """Read the labelled texts of one split into memory.

    Args:
        location: path or URI of a file, or `sample://NAME/SPLIT` (whose columns are fixed).
        text_column: column that holds the text.
        label_column: column that holds the label, a string or an integer.
        max_row_bytes: longest text, in bytes of UTF-8.

    Raises:
        DataError: the file, a column or a row is wrong; names the file, the line and the value.
        ServiceError: a remote store failed.
    """
    collector = RowCollector(max_row_bytes)
    try:
        for where, text, label in _read(location, text_column, label_column):
            collector.add(where, text, label)
    except FileNotFoundError as error:
        raise DataError("no such file", where=location, remedy="check the path") from error
    except PermissionError as error:
        raise DataError("cannot be read", where=location, remedy="check its permissions") from error
    except OSError as error:
        raise ServiceError(f"cannot be read: {error}", where=location, remedy="try again") from error
    rows = collector.rows()
    if not len(rows):
        raise DataError("has no rows", where=location, remedy="give at least one labelled text a class")
    return rows


def _read(location: str, text_column: str, label_column: str) -> Iterator[RawRow]:
    if location.startswith(SAMPLE_SCHEME):
        return read_sample(location)
    system, path = storage.open_location(location)
    extension = PurePosixPath(path).suffix.lower()
    _check_file(system.get_file_info(path), location, extension)
    if extension == ".csv":
        return read_csv(system, path, location, text_column, label_column)
    if extension == ".parquet":
        return read_parquet(system, path, location, text_column, label_column, MAX_FILE_BYTES)
    return read_jsonl(system, path, location, text_column, label_column)


def _check_file(info: pafs.FileInfo, location: str, extension: str) -> None:
    if info.type == pafs.FileType.NotFound:
        raise DataError("no such file", where=location, remedy="check the path")
    if info.type == pafs.FileType.Directory:
        raise DataError("is a folder", where=location, remedy="name one file of it")
    if extension not in EXTENSIONS:
        raise DataError(
            "has an unknown extension",
            where=location,
            value=extension,
            remedy=f"one of {', '.join(EXTENSIONS)}",
        )
    if info.size == 0:
        raise DataError("is empty", where=location, remedy="give a file with rows")
    if info.size is not None and info.size > MAX_FILE_BYTES:
        raise DataError(
            "has more bytes than are read into memory",
            where=location,
            value=info.size,
            remedy=f"keep it under {MAX_FILE_BYTES:,} bytes",
        )
