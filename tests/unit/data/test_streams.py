"""Rows without labels: what cannot be used is handed over with its place and its reason."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from equipoise.data import Layout, load_rows
from equipoise.data.image_folder import decode_image
from equipoise.data.sources import open_rows
from equipoise.data.streams import BadRow, Columns, count_rows, read_inputs
from equipoise.errors import DataError

Put = Callable[[str, str | bytes], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read(path: Path, layout: Layout = "text", **columns: Any) -> tuple[list[Any], list[BadRow]]:
    bad: list[BadRow] = []
    return [value for _, value in read_inputs(str(path), layout, Columns(**columns), bad.append)], bad


def png(value: int = 0) -> bytes:
    content = io.BytesIO()
    Image.new("L", (4, 3), value).save(content, "PNG")
    return content.getvalue()


def test_lines_of_csv_that_are_no_text_or_no_csv_are_left_out(put: Put) -> None:
    path = put(
        "a.csv",
        b'id,text\n1,one\n2,caf\xe9\n3,thr\0ee\n4,four\n5,"five\nca\xe9f\nend"\n6,"s"ix\n7,seven\n',
    )
    values, bad = read(path)
    assert values == ["one", "four", "seven"]
    assert [row.where for row in bad] == [f"{path}:{line}" for line in (3, 4, 7, 9)]
    reasons = (
        "is not UTF-8 text",
        "is not text: it holds a NUL byte",
        "is not UTF-8 text",
        "is not valid CSV",
    )
    assert all(row.reason.startswith(reason) for row, reason in zip(bad, reasons, strict=True))
    with pytest.raises(DataError, match=r"a\.csv:3: is not UTF-8 text"):
        load_rows(str(path), "text", "id", 1000)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"caf\xe9,text\n1,one\n", r"a\.csv:1: is not UTF-8"),
        (b'text\none\n"two\nthree\n', r"a\.csv:3: .*CSV"),
    ],
)
def test_a_csv_whose_header_or_end_cannot_be_told_is_refused(put: Put, content: bytes, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read(put("a.csv", content))


def test_lines_of_json_that_are_no_text_are_left_out(put: Put) -> None:
    path = put(
        "a.jsonl", b'\xef\xbb\xbf{"text": "one"}\n{"text": "caf\xe9\0"}\nno\n{"text": 4}\n{"text": "five"}'
    )
    values, bad = read(path)
    assert values == ["one", "five"]
    assert [row.where for row in bad] == [f"{path}:{line}" for line in (2, 3, 4)]
    with pytest.raises(DataError, match=r"a\.jsonl:2: is not text: it holds a NUL byte"):
        load_rows(str(path), "text", "text", 1000)


def test_sentences_need_no_tags_and_are_left_out_whole(put: Put) -> None:
    path = put(
        "a.conll",
        b"EU\nrejects\n\nPet\xe9r B-PER\nsaid O\n\n\nBlackburn NNP I-PER\n\nNew York B-LOC\nsaid O\n\n"
        b"German B-MISC\ncall\n",
    )
    values, bad = read(path, "words")
    assert values == [["EU", "rejects"], ["Blackburn"]]
    assert [(row.where, row.reason[:20]) for row in bad] == [
        (f"{path}:4", "is not UTF-8 text: i"),
        (f"{path}:11", "has 2 columns where "),
        (f"{path}:14", "has 1 columns where "),
    ]
    with pytest.raises(DataError, match=r"a\.conll:1: has a word without a tag"):
        load_rows(str(path), "words", "tags", 1000, "words")


def test_a_sentence_that_lacks_a_tag_is_left_out_where_tags_are_wanted(put: Put) -> None:
    path = put("a.conll", "EU B-ORG\nrejects\ncalls\n\nPeter B-PER\n\nBlackburn\n")
    faults: list[DataError] = []
    found = list(open_rows(str(path), "words", "tags", "words", on_fault=faults.append))
    assert found == [(f"{path}:5", ["Peter"], ["B-PER"])]
    assert [fault.where for fault in faults] == [f"{path}:2", f"{path}:7"]


@pytest.mark.parametrize("extension", [".csv", ".jsonl", ".parquet"])
def test_words_may_be_a_text(tmp_path: Path, extension: str) -> None:
    path, texts = tmp_path / f"a{extension}", ["EU rejects German call.", "Peter Blackburn"]
    if extension == ".csv":
        path.write_text("text\n" + "".join(f"{text}\n" for text in texts))
    elif extension == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        parquet.write_table(pa.table({"text": texts}), path)
    assert read(path, "words") == (texts, [])
    values, [bad] = read(path, "words", max_row_bytes=20)
    assert values == texts[1:]
    assert "more than data.max_row_bytes allows" in bad.reason


@pytest.mark.parametrize("extension", [".csv", ".jsonl"])
def test_prompts_come_from_a_column_of_their_own(put: Put, extension: str) -> None:
    path = put(
        f"a{extension}", "ask,say\nwhy,because\n" if extension == ".csv" else '{"ask":"why","say":"because"}'
    )
    assert read(path, "prompt", text="say", prompt="ask") == ([("why", "because")], [])
    assert read(path, "prompt", text="say") == ([("", "because")], [])


def test_images_stand_anywhere_in_a_folder_and_broken_ones_are_left_out(put: Put) -> None:
    folder = put("images/a.png", png(1)).parent
    put("images/b.png", png()[:40])
    put("images/red/c.png", png(3))
    put("images/red/deep/d.jpg", b"")
    put("images/notes.txt", "no image")
    values, bad = read(folder, "image")
    assert [int(image[0, 0]) for image in values] == [1, 3]
    assert [row.where for row in bad] == [f"{folder}/b.png", f"{folder}/red/deep/d.jpg"]
    assert all(row.reason.startswith("cannot be decoded") for row in bad)
    with pytest.raises(DataError, match=r"holds no images.*into it"):
        read(put("empty/notes.txt", "").parent, "image")


def test_idx_images_need_no_labels(put: Put) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    header = struct.pack(">HBB3I", 0, 8, 3, *images.shape)
    values, bad = read(put("t10k-images-idx3-ubyte.gz", gzip.compress(header + images.tobytes())), "image")
    np.testing.assert_array_equal(np.stack(values), images)
    assert bad == []


@given(st.data())
def test_a_damaged_image_is_a_fault_of_its_own_kind(data: st.DataObject) -> None:
    """Whatever bytes are lost or altered: an image comes, or a DataError, by which one row is left out."""
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP"]))
    content = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3) * 7).save(content, kind)
    damaged = bytearray(content.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(0, len(damaged)))
    with contextlib.suppress(DataError):
        assert decode_image(bytes(damaged[:kept]), "image").dtype == np.uint8


def test_rows_are_counted_where_that_takes_no_decoding(put: Put, tmp_path: Path) -> None:
    path = put("a.jsonl", '{"text": "a"}\n{"text": "b"}\n')
    for layout in ("text", "prompt", "words"):
        assert count_rows(str(path), layout) == 2
    parquet.write_table(pa.table({"text": ["a"] * 3}), tmp_path / "a.parquet")
    assert count_rows(str(tmp_path / "a.parquet"), "prompt") == 3
    assert count_rows(str(put("a.conll", "a\n\nb\n")), "words") is None
    assert count_rows(str(tmp_path), "image") is None
