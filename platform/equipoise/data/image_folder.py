"""A folder of images: one folder a label with image files in each, or image files alone."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pyarrow import fs as pafs

from equipoise.data.readers import OnFault, RawRow, refuse
from equipoise.errors import DataError

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
MAX_PIXELS = 64_000_000
"""Largest image that is decoded; a small file can say that it unpacks to gigabytes."""


def read_image_folder(
    system: pafs.FileSystem,
    path: str,
    name: str,
    max_side: int,
    *,
    labelled: bool = True,
    on_fault: OnFault | None = None,
) -> Iterator[RawRow]:
    """(where, image, label) of `LABEL/FILE` below a folder, in the order of their names.

    Args:
        max_side: images whose shorter side is longer are scaled down to it as they are read.
        labelled: whether each file must stand in the folder of its label; where it need not, files at any
            depth are read, and the labels are None.
        on_fault: called with what is wrong with one file, which is then left out.

    Raises:
        DataError: there are no images, or one cannot be decoded and nobody takes the fault.
    """
    files = sorted(
        (
            info
            for info in system.get_file_info(pafs.FileSelector(path, recursive=True))
            if info.type == pafs.FileType.File
            and PurePosixPath(info.path).suffix.lower() in IMAGE_EXTENSIONS
            and (not labelled or len(PurePosixPath(info.path).relative_to(path).parts) == 2)
        ),
        key=lambda info: str(info.path),
    )
    if not files:
        raise DataError(
            "holds no images",
            where=name,
            remedy=f"put files ({', '.join(IMAGE_EXTENSIONS)}) into "
            + ("one folder a label" if labelled else "it"),
        )
    for info in files:
        relative = PurePosixPath(info.path).relative_to(path)
        where = f"{name}/{relative}"
        try:
            image = decode_image(_read_file(system, info.path, where), where, max_side)
        except DataError as error:
            refuse(error, on_fault)
            continue
        yield where, image, relative.parts[0] if labelled else None


def _read_file(system: pafs.FileSystem, path: str, where: str) -> bytes:
    try:
        with system.open_input_stream(path) as stream:
            return bytes(stream.read())
    except PermissionError as error:
        raise DataError("cannot be read", where=where, remedy="check its permissions") from error


def decode_image(content: bytes, where: str, max_side: int | None = None) -> NDArray[np.uint8]:
    """An image file as bytes of shape (height, width) or (height, width, 3).

    Raises:
        DataError: it is no image, is damaged, or has more than MAX_PIXELS.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # PIL warns of images that are large, and refuses only those twice as large.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(content))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(
                "has too many pixels",
                where=where,
                value=width * height,
                remedy=f"keep it under {MAX_PIXELS:,}",
            )
        if max_side is not None and min(image.size) > max_side:
            share = max_side / min(image.size)
            image = image.resize((max(1, round(width * share)), max(1, round(height * share))))
        image = image.convert("L" if image.mode in ("1", "L", "I", "I;16", "F") else "RGB")
        return np.asarray(image, dtype=np.uint8)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot be decoded: {error}", where=where, remedy="save it again as PNG or JPEG"
        ) from error
