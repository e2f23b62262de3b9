"""Where examples come from: files of several formats on any pyarrow file system, and samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from pyarrow import fs as pafs

from equipoise import storage
from equipoise.data.conll import read_conll
from equipoise.data.hub import HUB_SCHEME, find_hub_files
from equipoise.data.idx import is_idx_images, read_idx
from equipoise.data.image_folder import decode_image, read_image_folder
from equipoise.data.layout import Layout
from equipoise.data.readers import OnFault, RawRow, read_csv, read_jsonl, read_parquet
from equipoise.data.rows import RowCollector, Rows
from equipoise.data.samples import SAMPLE_SCHEME, read_sample
from equipoise.errors import DataError, ServiceError

MAX_FILE_BYTES = 1_000_000_000_000
"""Largest file that is taken for data, and most bytes that a packed one may unpack to."""

MAX_IDX_BYTES = 2_000_000_000
"""The same of an IDX file, which is unpacked in memory."""

_MAX_SIDE = 512
"""Shorter side that images are kept at in memory, in pixels."""

EXTENSIONS: dict[Layout, tuple[str, ...]] = {
    "text": (".csv", ".jsonl", ".json", ".parquet"),
    "words": (".conll", ".bio", ".txt", ".jsonl", ".json", ".parquet"),
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
    try:
        if layout == "prompt":
            found = _read_prompts(location, text_column, prompt_column)
        else:
            found = open_rows(location, text_column, label_column, layout)
        for where, value, label in found:
            collector.add(where, value, label)
    except FileNotFoundError as error:
        raise DataError("no such file", where=location, remedy="check the path") from error
    except PermissionError as error:
        raise DataError("cannot be read", where=location, remedy="check its permissions") from error
    except OSError as error:
        raise ServiceError(f"cannot be read: {error}", where=location, remedy="try again") from error
    rows = collector.rows()
    if not len(rows):
        needed = "text" if layout == "prompt" else "labelled text a class"
        raise DataError("has no rows", where=location, remedy=f"give at least one {needed}")
    return rows


def _read_prompts(location: str, text_column: str, prompt_column: str | None) -> Iterator[RawRow]:
    """(where, prompt, text) of each row; None for the prompt where no column holds one."""
    if location.startswith(SAMPLE_SCHEME):
        for where, text, _ in read_sample(location, "prompt"):
            yield where, None, text
        return
    for where, text, prompt in open_rows(
        location, text_column, prompt_column or text_column, "prompt", "data.prompt_column"
    ):
        yield where, None if prompt_column is None else prompt, text


def open_rows(
    location: str,
    text_column: str,
    label_column: str,
    layout: Layout,
    label_key: str = "data.label_column",
    on_fault: OnFault | None = None,
) -> Iterator[RawRow]:
    """(where, input, label) of each row as it is read, values unchecked.

    Args:
        label_key: config key that an error about the label's column names.
        on_fault: called with what is wrong with one line, which is then left out; by default it is raised.
    """
    if location.startswith(SAMPLE_SCHEME):
        return read_sample(location, layout)
    if location.startswith(HUB_SCHEME):
        return _read_hub(location, text_column, label_column, layout, label_key)
    system, path = storage.open_location(location)
    if layout == "image":
        return _read_images(system, path, location)
    extension = PurePosixPath(path).suffix.lower()
    _check_file(system.get_file_info(path), location, extension, EXTENSIONS[layout])
    if layout == "words" and extension in (".conll", ".bio", ".txt"):
        return read_conll(system, path, location)
    if extension == ".csv":
        return read_csv(system, path, location, text_column, label_column, label_key, on_fault)
    if extension == ".parquet":
        return read_parquet(system, path, location, text_column, label_column, MAX_FILE_BYTES, label_key)
    return read_jsonl(system, path, location, text_column, label_column, label_key, on_fault)


def _read_hub(
    location: str, text_column: str, label_column: str, layout: Layout, label_key: str
) -> Iterator[RawRow]:
    local = pafs.LocalFileSystem()
    for number, file in enumerate(find_hub_files(location)):
        name = f"{location} part {number}"
        for where, value, label in read_parquet(
            local, str(file), name, text_column, label_column, MAX_FILE_BYTES, label_key
        ):
            # The hub keeps images as files, each in a cell.
            if layout == "image" and isinstance(value, dict):
                yield where, decode_image(value.get("bytes") or b"", where, _MAX_SIDE), label
            else:
                yield where, value, label


def _read_images(system: pafs.FileSystem, path: str, location: str) -> Iterator[RawRow]:
    if is_idx_images(path):
        return read_idx(system, path, location, MAX_IDX_BYTES)
    if system.get_file_info(path).type == pafs.FileType.Directory:
        return read_image_folder(system, path, location, _MAX_SIDE)
    raise DataError(
        "is neither a folder of images nor an IDX file of images",
        where=location,
        remedy="give a folder with one folder a label in it, or …images-idx3-ubyte.gz",
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
