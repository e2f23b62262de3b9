from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs as pafs
from pyarrow import parquet

from equipoise import storage
from equipoise.data import Rows, load_rows, sources
from equipoise.errors import DataError, InputError, ServiceError


def load(location: Path | str, max_row_bytes: int = 1000) -> Rows:
    return load_rows(str(location), "text", "label", max_row_bytes)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def put(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put


def fault(location: Path | str, max_row_bytes: int = 1000) -> str:
    with pytest.raises(DataError) as caught:
        load(location, max_row_bytes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_three_formats_hold_the_same_rows(
    intent_csv: Path, intent_jsonl: Path, intent_parquet: Path
) -> None:
    rows = load(intent_csv)
    assert len(rows) == 120
    assert load(intent_jsonl) == rows
    assert load(intent_parquet) == rows


def test_a_file_uri_reads_as_its_path_does(intent_csv: Path) -> None:
    assert load(f"file://{intent_csv}") == load(intent_csv)


def test_any_pyarrow_file_system_is_read(
    intent_parquet: Path, intent_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_elsewhere(location: str) -> tuple[pafs.FileSystem, str]:
        path = Path(location.removeprefix("store:/"))
        return pafs.SubTreeFileSystem(str(path.parent), pafs.LocalFileSystem()), path.name

    monkeypatch.setattr(storage, "open_location", open_elsewhere)
    assert load(f"store:/{intent_parquet}") == load(f"store:/{intent_csv}")
    assert "no such file" in fault("store://nowhere/a.csv")


def test_csv_quotes_line_ends_and_a_byte_order_mark(write: Callable[..., Path]) -> None:
    path = write("a.CSV", '\ufefflabel,text,more\r\n a ,"one, ""two""\nthree",x\r\n\r\n7, kept ,y\r\n')
    assert load(path) == Rows(['one, "two"\nthree', " kept "], ["a", "7"])


def test_csv_keeps_what_a_type_guesser_would_change(write: Callable[..., Path]) -> None:
    path = write("a.csv", "text,label\nNA,01\nnull,true\n1e5,NaN\n")
    assert load(path) == Rows(["NA", "null", "1e5"], ["01", "true", "NaN"])


def test_a_csv_field_may_be_longer_than_the_csv_module_allows(write: Callable[..., Path]) -> None:
    path = write("a.csv", f"text,label\n{'a' * 200_000},x\n")
    assert len(load(path, 250_000).inputs[0]) == 200_000


def test_integer_labels_become_strings(write: Callable[..., Path]) -> None:
    path = write("a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b", "label": -2}\n')
    assert load(path).labels == ["1", "-2"]


def test_parquet_dictionary_and_integer_columns(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array(["a", "b"]).dictionary_encode(), "label": [3, 4]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet") == Rows(["a", "b"], ["3", "4"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert fault(tmp_path / "no.csv") == f"{tmp_path}/no.csv: no such file; check the path"


def test_a_folder_and_an_unknown_extension(tmp_path: Path, write: Callable[..., Path]) -> None:
    assert "is a folder" in fault(tmp_path)
    assert "one of .csv, .jsonl, .json, .parquet" in fault(write("a.xlsx", "x"))


def test_an_unknown_scheme_is_bad_input() -> None:
    with pytest.raises(InputError, match="not a usable location"):
        load("nowhere://a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_an_empty_file(name: str, write: Callable[..., Path]) -> None:
    assert "is empty" in fault(write(name, ""))


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "text,label\n"), ("a.csv", "\n\n"), ("a.jsonl", "\n")]
)
def test_a_file_without_rows(name: str, content: str, write: Callable[..., Path]) -> None:
    assert "has no rows" in fault(write(name, content))


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    schema = pa.schema({"text": pa.string(), "label": pa.string()})
    parquet.write_table(schema.empty_table(), tmp_path / "a.parquet")
    assert "has no rows" in fault(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_binary_content_is_refused_with_its_line(name: str, write: Callable[..., Path]) -> None:
    head = "text,label\na,b\n" if name == "a.csv" else '{"text": "a", "label": "b"}\n'
    line = head.count("\n") + 1
    assert f"{name}:{line}: is not text: it holds a NUL byte" in fault(
        write(name, head.encode() + b"a\0b,c\n")
    )
    assert f"{name}:{line}: is not UTF-8 text" in fault(
        write(name, head.encode() + "café,x\n".encode("latin-1"))
    )


def test_a_malformed_csv_line_is_named(write: Callable[..., Path]) -> None:
    message = fault(write("a.csv", "text,label\ngood,x\none, two,x\n"))
    assert "a.csv:3: line has 3 columns where the header has 2; put texts that hold commas" in message
    assert "a.csv:2: is not valid CSV" in fault(write("a.csv", 'text,label\n"open,x\nmore,y\n'))


@pytest.mark.parametrize("line", ['{"text": "a"', "text", "[" * 100_000])
def test_a_malformed_json_line_is_named(line: str, write: Callable[..., Path]) -> None:
    message = fault(write("a.jsonl", '{"text": "a", "label": "b"}\n' + line + "\n"))
    assert "a.jsonl:2: is not valid JSON" in message


def test_a_json_array_is_refused(write: Callable[..., Path]) -> None:
    message = fault(write("a.json", json.dumps([{"text": "a", "label": "b"}])))
    assert "a.json:1: is no JSON object" in message
    assert "write one JSON object a line" in message


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_missing_column_lists_what_there_is(name: str, tmp_path: Path, write: Callable[..., Path]) -> None:
    if name == "a.csv":
        write(name, "texts,label\na,b\n")
    elif name == "a.jsonl":
        write(name, '{"texts": "a", "label": "b"}\n')
    else:
        parquet.write_table(pa.table({"texts": ["a"], "label": ["b"]}), tmp_path / name)
    message = fault(tmp_path / name)
    assert (
        "has no column 'text'; it has 'texts', 'label'; did you mean 'texts'? set data.text_column" in message
    )


def test_a_repeated_column_is_refused(write: Callable[..., Path]) -> None:
    assert "column stands in the header twice (got 'text')" in fault(
        write("a.csv", "text,text,label\na,b,c\n")
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": None, "label": "a"}, "text is null"),
        ({"text": 5, "label": "a"}, "text is not a string (got 5)"),
        ({"text": ["a"], "label": "a"}, "text is not a string (got ['a'])"),
        ({"text": "a", "label": None}, "label is null"),
        ({"text": "a", "label": "  "}, "label is null"),
        ({"text": "a", "label": 1.5}, "label is not a string or an integer (got 1.5)"),
        ({"text": "a", "label": True}, "label is not a string or an integer (got True)"),
        ({"text": "a \ud800", "label": "a"}, "half of a surrogate pair"),
        ({"text": "a", "label": "\udfff"}, "half of a surrogate pair"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(
    row: dict[str, Any], expected: str, write: Callable[..., Path]
) -> None:
    message = fault(write("a.jsonl", '{"text": "a", "label": "b"}\n' + json.dumps(row)))
    assert "a.jsonl:2: " in message
    assert expected in message


def test_null_values_in_csv_and_parquet(tmp_path: Path, write: Callable[..., Path]) -> None:
    assert "a.csv:3: label is null" in fault(write("a.csv", "text,label\na,b\na,\n"))
    parquet.write_table(pa.table({"text": ["a", None], "label": ["b", "c"]}), tmp_path / "a.parquet")
    assert "a.parquet row 2: text is null" in fault(tmp_path / "a.parquet")


def test_a_row_that_is_too_long_names_its_size(write: Callable[..., Path]) -> None:
    path = write("a.csv", f"text,label\n{'é' * 50},x\n")
    assert len(load(path, 100)) == 1
    assert "a.csv:2: text has 100 bytes, more than data.max_row_bytes allows (got 99)" in fault(path, 99)


def test_a_damaged_parquet_file(intent_parquet: Path, write: Callable[..., Path]) -> None:
    content = intent_parquet.read_bytes()
    for damaged in (b"text,label\n", content[:-20], content[: len(content) // 2]):
        assert "is not a readable Parquet file" in fault(write("a.parquet", damaged))


def test_a_file_above_the_limit_is_refused_before_it_is_read(
    intent_csv: Path, intent_parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(sources.MAX_FILE_BYTES + 1)
    assert f"has more bytes than are taken for data (got {sources.MAX_FILE_BYTES + 1})" in fault(huge)
    table = pa.table({"text": ["a" * 900] * 5000, "label": ["b"] * 5000})
    parquet.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="zstd")
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 100_000)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    assert "unpacks to more bytes than are taken for data" in fault(tmp_path / "a.parquet")


def test_a_store_that_fails_is_worth_a_retry(intent_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(location: str) -> tuple[pafs.FileSystem, str]:
        raise OSError("connection reset")

    monkeypatch.setattr(storage, "open_location", fail)
    with pytest.raises(ServiceError, match="connection reset"):
        load(intent_csv)


def test_select_keeps_the_order_given() -> None:
    rows = Rows(["a", "b", "c"], ["x", "y", "z"])
    assert rows.select([2, 0]) == Rows(["c", "a"], ["z", "x"])
    assert len(rows.select([])) == 0
