from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data.streams import Columns
from equipoise.pipeline.prediction_blocks import drop_unfinished, read_blocks

PART_ROWS = 4


def read(source: Path, bad: Path, done: list[tuple[int, int]]) -> list[int]:
    """Numbers of the rows that no part holds, as blocks of at most PART_ROWS bring them."""
    blocks = list(read_blocks(str(source), "text", Columns(), done, PART_ROWS, str(bad)))
    assert all(0 < len(block) <= PART_ROWS for block in blocks)
    return [number for block in blocks for number in block["row"].to_pylist()]


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.is_dir() else {}


@given(
    usable=st.lists(st.booleans(), max_size=40),
    cuts=st.sets(st.integers(0, 40), max_size=8),
)
def test_reading_again_puts_the_same_bad_rows_whatever_parts_there_are(
    usable: list[bool], cuts: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, bad = folder / "in.jsonl", folder / "bad"
        lines = [json.dumps({"text": f"row {line}"}) if good else "{" for line, good in enumerate(usable)]
        source.write_text("".join(f"{line}\n" for line in [json.dumps({"text": "first"}), *lines]))
        count = 1 + sum(usable)
        assert read(source, bad, []) == list(range(count))
        first = files(bad)
        told = [json.loads(line)["where"] for name in sorted(first) for line in first[name].splitlines()]
        assert told == [f"{source}:{line + 2}" for line, good in enumerate(usable) if not good]
        assert all(content.count("\n") <= PART_ROWS for content in first.values())

        bounds = sorted(cut for cut in cuts if cut < count)
        done = [(start, stop) for start, stop in zip(bounds[::2], bounds[1::2], strict=False)]
        left = [row for row in range(count) if not any(start <= row <= stop for start, stop in done)]
        assert read(source, bad, done) == left
        assert files(bad) == first


def test_what_a_killed_try_put_aside_of_a_part_it_did_not_put_goes(tmp_path: Path) -> None:
    bad, parts = tmp_path / "bad", tmp_path / "parts"
    drop_unfinished(str(parts), str(bad))
    for folder, name in (
        (bad, "read-000000"),
        (bad, "predict-0-3"),
        (bad, "predict-4-7"),
        (parts, "rows-0-3"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.jsonl").write_text("{}\n")
    drop_unfinished(str(parts), str(bad))
    assert files(bad).keys() == {"read-000000.jsonl", "predict-0-3.jsonl"}


def test_a_source_without_any_usable_row_has_bad_rows_alone(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{\n" * 9)
    assert read(tmp_path / "in.jsonl", tmp_path / "bad", []) == []
    assert sum(content.count("\n") for content in files(tmp_path / "bad").values()) == 9


@pytest.mark.parametrize("node", ["aws/c7i.lrage", "nowhere"])
def test_a_node_without_a_price_is_named(node: str) -> None:
    from equipoise.errors import ConfigError
    from equipoise.pipeline.job import check_node

    with pytest.raises(ConfigError, match=rf"--node: node is not in the price book \(got '{node}'\)"):
        check_node(node)
