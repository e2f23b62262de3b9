"""IDX files, as MNIST and its kin are kept: images in one, the label of each in another beside it."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pyarrow import fs as pafs

from equipoise.data.readers import RawRow
from equipoise.errors import DataError

_UNSIGNED_BYTE = 0x08


def is_idx_images(path: str) -> bool:
    """Whether a path names an IDX file of images, gzipped or not."""
    return PurePosixPath(path).name.removesuffix(".gz").endswith(("-idx3-ubyte", "-idx4-ubyte"))


def read_idx(
    system: pafs.FileSystem, path: str, name: str, max_bytes: int, *, labelled: bool = True
) -> Iterator[RawRow]:
    """(where, image, label) of each image; `…images-idx3-ubyte` has its labels in `…labels-idx1-ubyte`.

    Images are arrays of (height, width) or (height, width, 3) bytes. Without `labelled` no labels are
    looked for, and they are None.

    Raises:
        DataError: a file is damaged or missing, the two do not fit, or they unpack to more than `max_bytes`.
    """
    images = _read_array(system, path, name, max_bytes)
    labels = _read_labels(system, path, name, max_bytes, len(images)) if labelled else [None] * len(images)
    for number, (image, label) in enumerate(zip(images, labels, strict=True), start=1):
        yield f"{name} image {number}", image, label


def _read_labels(system: pafs.FileSystem, path: str, name: str, max_bytes: int, count: int) -> list[int]:
    labels_path = path.replace("images-idx3", "labels-idx1").replace("images-idx4", "labels-idx1")
    labels_name = name.replace("images-idx3", "labels-idx1").replace("images-idx4", "labels-idx1")
    if labels_path == path or system.get_file_info(labels_path).type != pafs.FileType.File:
        raise DataError(
            "has no file of labels beside it",
            where=name,
            value=PurePosixPath(labels_path).name,
            remedy="keep …images-idx3-ubyte and …labels-idx1-ubyte in one folder",
        )
    labels = _read_array(system, labels_path, labels_name, max_bytes)
    if labels.ndim != 1 or len(labels) != count:
        raise DataError(
            f"has {len(labels)} labels for {count} images", where=labels_name, remedy="fetch both again"
        )
    found: list[int] = labels.tolist()
    return found


def _read_array(system: pafs.FileSystem, path: str, name: str, max_bytes: int) -> NDArray[np.uint8]:
    try:
        # Pyarrow would unpack by the file's ending on its own; the limit must hold while unpacking.
        with system.open_input_stream(path, compression=None) as stream:
            raw = gzip.GzipFile(fileobj=stream) if path.endswith(".gz") else stream
            zero, kind, dimensions = struct.unpack(">HBB", raw.read(4))
            shape = struct.unpack(f">{dimensions}I", raw.read(4 * dimensions))
            size = math.prod(shape)
            if zero or kind != _UNSIGNED_BYTE:
                raise DataError("is no IDX file of bytes", where=name, remedy="fetch it again")
            if size > max_bytes:
                raise DataError(
                    "unpacks to more bytes than are read into memory",
                    where=name,
                    value=size,
                    remedy=f"keep it under {max_bytes:,} bytes",
                )
            content = raw.read(size + 1)
    except (struct.error, EOFError, gzip.BadGzipFile, OverflowError) as error:
        raise DataError(f"is a damaged IDX file: {error}", where=name, remedy="fetch it again") from error
    if len(content) != size:
        raise DataError(
            f"has {len(content):,} bytes where its header says {size:,}", where=name, remedy="fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
