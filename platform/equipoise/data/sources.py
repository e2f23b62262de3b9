"""Where examples come from: files of several formats on any pyarrow file system, and samples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pyarrow import fs as pafs

from equipoise import storage
from equipoise.data.conll import read_conll
from equipoise.data.hub import HUB_SCHEME, find_hub_files
from equipoise.data.idx import is_idx_images, read_idx
from equipoise.data.image_folder import decode_image, read_image_folder
from equipoise.data.layout import Layout
from equipoise.data.readers import OnFault, RawRow, read_csv, read_jsonl, read_parquet, refuse
from equipoise.data.rows import RowCollector, Rows
from equipoise.data.samples import SAMPLE_SCHEME, read_sample
from equipoise.errors import DataError, ServiceError

MAX_FILE_BYTES = 1_000_000_000_000
"""Largest file that is taken for data, and most bytes that a packed one may unpack to."""

MAX_IDX_BYTES = 2_000_000_000
"""The same of an IDX file, which is unpacked in memory."""

_MAX_SIDE = 512
"""Shorter side that images are kept at in memory, in pixels."""

_LINES_OF_WORDS = (".conll", ".bio", ".txt")

EXTENSIONS: dict[Layout, tuple[str, ...]] = {
    "text": (".csv", ".jsonl", ".json", ".parquet"),
    "words": (*_LINES_OF_WORDS, ".jsonl", ".json", ".parquet"),
    "prompt": (".csv", ".jsonl", ".json", ".parquet"),
    "image": (),
}
"""Files that hold rows of each layout."""


def load_rows(
    location: str,
    text_column: str,
    label_column: str,
    max_row_bytes: int,
    layout: Layout = "text",
    prompt_column: str | None = None,
) -> Rows:
    """Read the rows of one split; many of them are kept on disk and read from there.

    Args:
        location: path or URI of a file, or `sample://NAME/SPLIT` (whose columns are fixed).
        text_column: column that holds the input: a text, or a list of words.
        label_column: column that holds the label, a string or an integer, or a list of tags; rows of the
            layout "prompt" have none.
        max_row_bytes: longest text, in bytes of UTF-8.
        prompt_column: column that holds what the text follows, of the layout "prompt" alone.

    Raises:
        DataError: the file, a column or a row is wrong; names the file, the line and the value.
        ServiceError: a remote store failed.
    """
    collector = RowCollector(layout, max_row_bytes)
    with reading_faults(location):
        if layout == "prompt":
            found = open_prompts(location, text_column, prompt_column)
        else:
            found = open_rows(location, text_column, label_column, layout)
        for where, value, label in found:
            collector.add(where, value, label)
    rows = collector.rows()
    if not len(rows):
        needed = "text" if layout == "prompt" else "labelled text a class"
        raise DataError("has no rows", where=location, remedy=f"give at least one {needed}")
    return rows


@contextlib.contextmanager
def reading_faults(location: str) -> Iterator[None]:
    """Turn what the system says of reading a source into an error of ours.

    Raises:
        DataError: it is not there, or reading it is not allowed.
        ServiceError: it cannot be read for another reason.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DataError("no such file", where=location, remedy="check the path") from error
    except PermissionError as error:
        raise DataError("cannot be read", where=location, remedy="check its permissions") from error
    except OSError as error:
        raise ServiceError(f"cannot be read: {error}", where=location, remedy="try again") from error


def open_prompts(
    location: str, text_column: str, prompt_column: str | None, on_fault: OnFault | None = None
) -> Iterator[RawRow]:
    """(where, prompt, text) of each row, values unchecked; None for the prompt where no column holds one.

    Args:
        on_fault: as of `open_rows`.
    """
    if location.startswith(SAMPLE_SCHEME):
        for where, text, _ in read_sample(location, "prompt"):
            yield where, None, text
        return
    for where, text, prompt in open_rows(
        location, text_column, prompt_column, "prompt", "data.prompt_column", on_fault
    ):
        yield where, None if prompt_column is None else prompt, text


def open_rows(
    location: str,
    text_column: str,
    label_column: str | None,
    layout: Layout,
    label_key: str = "data.label_column",
    on_fault: OnFault | None = None,
) -> Iterator[RawRow]:
    """(where, input, label) of each row as it is read, values unchecked.

    Args:
        label_column: None where no labels are wanted: what comes in their place means nothing, and words
            may stand in a text, in CSV too.
        label_key: config key that an error about the label's column names.
        on_fault: called with what is wrong with one row, which is then left out; by default it is raised.
    """
    labelled = label_column is not None
    if location.startswith(SAMPLE_SCHEME):
        return read_sample(location, layout)
    columns = text_column, text_column if label_column is None else label_column
    if location.startswith(HUB_SCHEME):
        return _read_hub(location, columns, layout, label_key, on_fault)
    system, path = storage.open_location(location)
    if layout == "image":
        return _read_images(system, path, location, labelled, on_fault)
    extension = PurePosixPath(path).suffix.lower()
    known = EXTENSIONS[layout] if labelled or layout != "words" else (*EXTENSIONS[layout], ".csv")
    _check_file(system.get_file_info(path), location, extension, known)
    if layout == "words" and extension in _LINES_OF_WORDS:
        return read_conll(system, path, location, labelled=labelled, on_fault=on_fault)
    if extension == ".csv":
        return read_csv(system, path, location, *columns, label_key, on_fault)
    if extension == ".parquet":
        return read_parquet(system, path, location, *columns, MAX_FILE_BYTES, label_key)
    return read_jsonl(system, path, location, *columns, label_key, on_fault)


def _read_hub(
    location: str, columns: tuple[str, str], layout: Layout, label_key: str, on_fault: OnFault | None
) -> Iterator[RawRow]:
    local = pafs.LocalFileSystem()
    for number, file in enumerate(find_hub_files(location)):
        name = f"{location} part {number}"
        for where, value, label in read_parquet(local, str(file), name, *columns, MAX_FILE_BYTES, label_key):
            if layout != "image":
                yield where, value, label
                continue
            try:
                image = _decode_cell(value, where)
            except DataError as error:
                refuse(error, on_fault)
                continue
            yield where, image, label


def _decode_cell(value: object, where: str) -> NDArray[np.uint8]:
    """The hub keeps images as files, each in a cell."""
    content = value.get("bytes") if isinstance(value, dict) else None
    if not isinstance(content, bytes):
        raise DataError(
            "holds no image file", where=where, value=value, remedy="name the column that holds images"
        )
    return decode_image(content, where, _MAX_SIDE)


def _read_images(
    system: pafs.FileSystem, path: str, location: str, labelled: bool, on_fault: OnFault | None
) -> Iterator[RawRow]:
    if is_idx_images(path):
        return read_idx(system, path, location, MAX_IDX_BYTES, labelled=labelled)
    if system.get_file_info(path).type == pafs.FileType.Directory:
        return read_image_folder(system, path, location, _MAX_SIDE, labelled=labelled, on_fault=on_fault)
    raise DataError(
        "is neither a folder of images nor an IDX file of images",
        where=location,
        remedy=f"give a folder with {'one folder a label' if labelled else 'images'} in it, "
        "or …images-idx3-ubyte.gz",
    )


def _check_file(info: pafs.FileInfo, location: str, extension: str, known: tuple[str, ...]) -> None:
    if info.type == pafs.FileType.NotFound:
        raise DataError("no such file", where=location, remedy="check the path")
    if info.type == pafs.FileType.Directory:
        raise DataError("is a folder", where=location, remedy="name one file of it")
    if extension not in known:
        raise DataError(
            "has an unknown extension",
            where=location,
            value=extension,
            remedy=f"one of {', '.join(known)}",
        )
    if info.size == 0:
        raise DataError("is empty", where=location, remedy="give a file with rows")
    if info.size is not None and info.size > MAX_FILE_BYTES:
        raise DataError(
            "has more bytes than are taken for data",
            where=location,
            value=info.size,
            remedy=f"keep it under {MAX_FILE_BYTES:,} bytes",
        )
