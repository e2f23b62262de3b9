"""Readers of the three file formats: each yields (where, text, label) a row, values unchecked.

`label_key` is the config key that an error about the label's column names.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
from pyarrow import fs as pafs
from pyarrow import parquet

from equipoise.errors import DataError

RawRow = tuple[str, object, object]
OnFault = Callable[[DataError], None]
"""Takes what is wrong with one line, where the lines after it can still be read."""

_BUFFER_BYTES = 1 << 20
_NO_TEXT = "\N{REPLACEMENT CHARACTER}"
_UNCLOSED = "unexpected end of data"
"""What the csv module says where a quote is still open at the end of the file."""


def read_csv(
    system: pafs.FileSystem,
    path: str,
    name: str,
    text_column: str,
    label_column: str,
    label_key: str = "data.label_column",
    on_fault: OnFault | None = None,
) -> Iterator[RawRow]:
    """Rows of a comma-separated file with a header line; values are strings.

    Raises:
        DataError: a line is no UTF-8 or no CSV, or a column is missing.
    """
    with system.open_input_stream(path) as stream:
        header: list[str] = []

        def leave_out(fault: DataError) -> None:
            # Below a header that cannot be read nothing can.
            refuse(fault, on_fault if header else None)

        for where, fields in _read_records(stream, name, leave_out):
            if not fields:
                continue
            if not header:
                header = [column.strip() for column in fields]
                text_at = find_column(header, text_column, where, "data.text_column")
                label_at = find_column(header, label_column, where, label_key)
                continue
            if len(fields) != len(header):
                fault = DataError(
                    f"line has {len(fields)} columns where the header has {len(header)}",
                    where=where,
                    remedy="put texts that hold commas in double quotes",
                )
                leave_out(fault)
                continue
            yield where, fields[text_at], fields[label_at]


def _read_records(stream: pa.NativeFile, name: str, on_fault: OnFault) -> Iterator[tuple[str, list[str]]]:
    """(where, fields) of each record, which may take several lines; `on_fault` gets each that has a fault.

    Raises:
        DataError: a quote is never closed, so that there is no telling what of the rest was meant as rows.
    """
    faults: list[DataError] = []
    # The csv module refuses fields above 128 KiB; the limit that applies here is max_row_bytes.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(decode_lines(stream, name, faults.append), strict=True)
    while True:
        where, fields = f"{name}:{reader.line_num + 1}", None
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = DataError(f"is not valid CSV: {error}", where=where, remedy="check its double quotes")
            if str(error) == _UNCLOSED:
                raise fault from error
            faults.append(fault)
        if faults:
            on_fault(faults[0])
            faults.clear()
        elif fields is not None:
            yield where, fields


def read_jsonl(
    system: pafs.FileSystem,
    path: str,
    name: str,
    text_column: str,
    label_column: str,
    label_key: str = "data.label_column",
    on_fault: OnFault | None = None,
) -> Iterator[RawRow]:
    """Rows of a file with one JSON object a line.

    Raises:
        DataError: a line is no UTF-8 or no JSON object, or lacks a column.
    """
    with system.open_input_stream(path) as stream:
        faults: list[DataError] = []
        for number, line in enumerate(decode_lines(stream, name, faults.append), start=1):
            if faults:
                refuse(faults[0], on_fault)
                faults.clear()
                continue
            if not line.strip():
                continue
            where = f"{name}:{number}"
            try:
                row = _parse_object(line, where)
                for column, key in ((text_column, "data.text_column"), (label_column, label_key)):
                    if column not in row:
                        find_column(list(row), column, where, key)
            except DataError as error:
                refuse(error, on_fault)
                continue
            yield where, row[text_column], row[label_column]


def _parse_object(line: str, where: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"is not valid JSON: {error}", where=where, remedy="write one JSON object a line"
        ) from error
    if not isinstance(row, dict):
        raise DataError("is no JSON object", where=where, value=row, remedy="write one JSON object a line")
    return row


def refuse(fault: DataError, on_fault: OnFault | None) -> None:
    """Hand a fault to whoever takes it.

    Raises:
        DataError: nobody does.
    """
    if on_fault is None:
        raise fault
    on_fault(fault)


def read_parquet(
    system: pafs.FileSystem,
    path: str,
    name: str,
    text_column: str,
    label_column: str,
    max_bytes: int,
    label_key: str = "data.label_column",
) -> Iterator[RawRow]:
    """Rows of a Parquet file; only the two columns are read.

    Raises:
        DataError: it is damaged or no Parquet, lacks a column, or unpacks to more than `max_bytes`.
    """
    try:
        with system.open_input_file(path) as source, parquet.ParquetFile(source) as file:
            found = file.schema_arrow.names
            find_column(found, text_column, name, "data.text_column")
            find_column(found, label_column, name, label_key)
            size = _unpacked_bytes(file.metadata, {text_column, label_column})
            if size > max_bytes:
                raise DataError(
                    "unpacks to more bytes than are taken for data",
                    where=name,
                    value=size,
                    remedy=f"keep it under {max_bytes:,} bytes",
                )
            names = _class_names(file.schema_arrow.metadata, label_column)
            number = 0
            for batch in file.iter_batches(columns=list(dict.fromkeys([text_column, label_column]))):
                texts, labels = batch.column(text_column), batch.column(label_column)
                for text, label in zip(texts.to_pylist(), labels.to_pylist(), strict=True):
                    number += 1
                    yield f"{name} row {number}", text, _name_of(label, names)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise DataError(
            f"is not a readable Parquet file: {error}", where=name, remedy="write it again"
        ) from error


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str] | None:
    """Names of a column's classes, where the data sets library wrote the file and numbered them."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[column]
        inner = feature.get("feature", feature)
        names: list[str] = inner["names"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return names


def _name_of(label: object, names: list[str] | None) -> object:
    if names is None:
        return label
    if isinstance(label, list):
        return [_name_of(part, names) for part in label]
    # -1 stands for "not labelled" there.
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else None


def find_column(found: Sequence[str], column: str, where: str, key: str) -> int:
    """Position of a column.

    Raises:
        DataError: it is not there, or there twice; lists what is.
    """
    if found.count(column) == 1:
        return found.index(column)
    if column in found:
        raise DataError("column stands in the header twice", where=where, value=column, remedy="rename one")
    near = difflib.get_close_matches(column, found, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? set {key}" if near else f"set {key}"
    raise DataError(
        f"has no column {column!r}", where=where, remedy=f"it has {', '.join(map(repr, found[:20]))}; {hint}"
    )


def decode_lines(stream: pa.NativeFile, name: str, on_fault: OnFault | None = None) -> Iterator[str]:
    """Decoded lines with their ends; an initial byte-order mark is dropped.

    Args:
        on_fault: called with what is wrong with a line before it comes, with U+FFFD for what is no text.

    Raises:
        DataError: a line is no text, and nobody takes the fault.
    """
    for number, line in enumerate(io.BufferedReader(stream, _BUFFER_BYTES), start=1):
        where, encoding = f"{name}:{number}", "utf-8-sig" if number == 1 else "utf-8"
        if b"\0" in line:
            fault = "is not text: it holds a NUL byte"
            refuse(DataError(fault, where=where, remedy="save it as UTF-8 text"), on_fault)
            line = line.replace(b"\0", _NO_TEXT.encode())
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError as error:
            found = line[error.start : error.end]
            remedy = "save it as UTF-8 text"
            refuse(
                DataError(f"is not UTF-8 text: {error.reason}", where=where, value=found, remedy=remedy),
                on_fault,
            )
            yield line.decode(encoding, errors="replace")


def _unpacked_bytes(metadata: parquet.FileMetaData, columns: set[str]) -> int:
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    return sum(
        chunk.total_uncompressed_size
        for group in groups
        for chunk in (group.column(index) for index in range(group.num_columns))
        if chunk.path_in_schema in columns
    )
