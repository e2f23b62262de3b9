from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from equipoise.data import Rows, corrupt_rows, corruptions_of, load_rows
from equipoise.data.image_folder import decode_image
from equipoise.errors import DataError


def load(location: Path) -> Rows:
    return load_rows(str(location), "image", "label", 1000, "image")


def put_idx(folder: Path, images: NDArray[np.uint8], labels: list[int], *, packed: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in (
        (f"train-images-idx{images.ndim}-ubyte", images),
        ("train-labels-idx1-ubyte", np.array(labels, dtype=np.uint8)),
    ):
        content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder / f"train-images-idx{images.ndim}-ubyte{'.gz' if packed else ''}"


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (6, 8, 5), dtype=np.uint8)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_images_come_with_the_labels_beside_them(
    tmp_path: Path, images: NDArray[np.uint8], packed: bool
) -> None:
    rows = load(put_idx(tmp_path, images, [0, 1, 2, 0, 1, 2], packed=packed))
    assert rows.labels == ["0", "1", "2", "0", "1", "2"]
    np.testing.assert_array_equal(np.stack(rows.inputs), images)


def test_idx_files_that_do_not_fit_or_are_damaged_are_named(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    with pytest.raises(DataError, match="has 5 labels for 6 images"):
        load(put_idx(tmp_path / "a", images, [0] * 5))
    path = put_idx(tmp_path / "b", images, [0] * 6, packed=False)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="has 233 bytes where its header says 240"):
        load(path)
    path = put_idx(tmp_path / "c", images, [0] * 6)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="is a damaged IDX file"):
        load(path)
    path = put_idx(tmp_path / "d", images, [0] * 6)
    (tmp_path / "d" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="has no file of labels beside it"):
        load(path)


def test_a_header_that_promises_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**10, 2**10))
    with pytest.raises(DataError, match="unpacks to more bytes than are read"):
        load(path)


def test_a_folder_a_label(tmp_path: Path) -> None:
    for label, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("RGB", (6, 4), colour).save(tmp_path / label / f"{number}.png")
    (tmp_path / "red" / "notes.txt").write_text("no image")
    rows = load(tmp_path)
    assert rows.labels == ["blue", "blue", "red", "red"]
    assert rows.inputs[0].shape == (4, 6, 3)
    assert rows.inputs[3][0, 0].tolist() == [255, 0, 0]


def test_large_images_are_scaled_down_as_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (2048, 1024)).save(tmp_path / "a" / "wide.png")
    assert load(tmp_path).inputs[0].shape == (512, 1024)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        load(tmp_path)
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=r"a/broken\.png: cannot be decoded"):
        load(tmp_path)
    with pytest.raises(DataError, match="is neither a folder of images nor an IDX file"):
        load(tmp_path / "a" / "broken.png")


def test_a_small_file_of_many_pixels_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="could be decompression bomb"):
        decode_image(path.read_bytes(), "bomb.png")
    Image.new("1", (10_000, 9_000)).save(path)
    with pytest.raises(DataError, match="has too many pixels"):
        decode_image(path.read_bytes(), "bomb.png")


@pytest.mark.parametrize("shape", [(28, 28), (20, 30, 3)])
def test_each_corruption_changes_an_image_and_keeps_its_kind(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    for kind, share in corruptions_of("image"):
        [first], [again] = (corrupt_rows([image], kind, share, seed=3) for _ in range(2))
        assert first.shape == image.shape
        assert first.dtype == np.uint8
        assert (first != image).any()
        np.testing.assert_array_equal(first, again)


def test_more_of_a_corruption_does_more() -> None:
    image = np.random.default_rng(2).integers(0, 256, (28, 28), dtype=np.uint8)
    for kind in {kind for kind, _ in corruptions_of("image")}:
        little, much = (
            np.abs(corrupt_rows([image], kind, share, seed=3)[0].astype(float) - image).mean()
            for share in (0.1, 0.2)
        )
        assert little < much, kind
