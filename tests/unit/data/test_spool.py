"""Rows on disk say the same as rows in memory."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data import rows as rows_module
from equipoise.data.checks import find_repeats, hash_rows
from equipoise.data.layout import Layout
from equipoise.data.rows import RowCollector, Rows
from equipoise.data.spool import Spool, SpooledColumn
from equipoise.errors import DataError, StorageError

_words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)


def spooled(layout: Layout, inputs: list[Any], labels: list[Any]) -> Rows:
    spool = Spool(layout)
    middle = len(inputs) // 2
    spool.add(inputs[:middle], labels[:middle])
    spool.add(inputs[middle:], labels[middle:])
    return Rows(*spool.close())


@given(st.lists(st.tuples(_words, _words), min_size=1, max_size=30), st.data())
def test_texts_on_disk_are_those_in_memory(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    texts, labels = map(list, zip(*pairs, strict=True))
    memory, disk = Rows(texts, labels), spooled("text", texts, labels)
    assert list(disk.inputs) == texts
    assert list(disk.labels) == labels
    assert hash_rows(disk) == hash_rows(memory)
    assert find_repeats(disk, None, disk) == find_repeats(memory, None, memory)
    order = data.draw(st.lists(st.integers(0, len(texts) - 1)))
    assert list(disk.select(order).inputs) == memory.select(order).inputs
    assert disk.inputs[-1] == texts[-1]
    assert list(disk.inputs[1:3]) == texts[1:3]


@pytest.mark.parametrize(
    ("layout", "value", "label"),
    [
        ("words", ["Ada", "Lovelace"], ["B-PER", "I-PER"]),
        ("prompt", ("Q: ", "an answer"), ""),
        ("prompt", ("", "a text alone"), ""),
    ],
)
def test_other_layouts(layout: Layout, value: Any, label: Any) -> None:
    rows = spooled(layout, [value, value], [label, label])
    assert rows.inputs[1] == value
    assert type(rows.inputs[1]) is type(value)
    assert rows.labels[0] == label


def test_images() -> None:
    images = [np.arange(size * size * 3, dtype=np.uint8).reshape(size, size, 3) for size in (2, 5)]
    rows = spooled("image", [*images, images[0][:, :, 0]], ["a", "b", "c"])
    assert np.array_equal(rows.inputs[1], images[1])
    assert rows.inputs[2].shape == (2, 2)


def test_a_source_above_the_limit_goes_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "SPOOL_BYTES", 500)
    texts = [f"text number {number}" for number in range(100)]
    collector = RowCollector("text", 100)
    for number, text in enumerate(texts):
        collector.add(f"row {number}", text, f"class {number % 3}")
    rows = collector.rows()
    assert isinstance(rows.inputs, SpooledColumn)
    assert list(rows.inputs) == texts
    assert rows.labels[4] == "class 1"


def test_the_file_goes_with_its_last_column_unless_it_was_settled(tmp_path: Path) -> None:
    rows = spooled("text", ["a", "b", "c"], ["x", "y", "x"])
    assert isinstance(rows.inputs, SpooledColumn)
    file = rows.inputs.file
    part = rows.select([2, 0])
    settled = part.settled(tmp_path)
    again = pickle.loads(pickle.dumps(settled))  # noqa: S301 - what Ray does between its processes
    assert list(again.inputs) == ["c", "a"]
    assert list(again.labels) == ["x", "x"]
    del rows, part
    gc.collect()
    assert not file.exists()
    assert list(settled.inputs) == ["c", "a"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_is_not_there_says_which(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.arrow: .*a file system that all nodes see"):
        len(SpooledColumn(tmp_path / "gone.arrow", "input"))


def test_a_full_disk_says_so_and_leaves_nothing() -> None:
    """The file is `/dev/full`: a disk without room."""
    spool = Spool("text")
    folder = spool._folder
    spool._writer = pa.ipc.new_file(pa.OSFile("/dev/full", "wb"), spool._schema)
    with pytest.raises(StorageError, match="the disk is full"):
        spool.add(["a text" * 1000] * 100, ["class"] * 100)
    del spool
    gc.collect()
    assert not folder.exists()
