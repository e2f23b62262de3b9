from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.data import Rows, load_rows
from equipoise.errors import DataError

TEXT = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter\tNNP\tB-NP\tB-PER


Blackburn NNP I-NP I-PER
"""


def load(path: Path) -> Rows:
    return load_rows(str(path), "words", "tags", 1000, "words")


@pytest.mark.parametrize("name", ["a.conll", "a.bio", "a.txt"])
def test_sentences_are_parted_by_blank_lines(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TEXT)
    rows = load(tmp_path / name)
    assert rows.inputs == [["EU", "rejects"], ["Peter"], ["Blackburn"]]
    assert rows.labels == [["B-ORG", "O"], ["B-PER"], ["I-PER"]]


def test_a_word_without_a_tag_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("EU B-ORG\nrejects\n")
    with pytest.raises(DataError, match=r"a\.conll:2: has a word without a tag"):
        load(tmp_path / "a.conll")


def test_words_and_tags_come_from_json_lists_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"words": ["EU", "rejects"], "tags": ["B-ORG", "O"]}\n')
    assert load(path) == Rows([["EU", "rejects"]], [["B-ORG", "O"]])


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('{"words": ["EU"], "tags": ["B-ORG", "O"]}', "has 1 words and 2 tags"),
        ('{"words": "EU", "tags": ["O"]}', "words are not a list"),
        ('{"words": ["EU"], "tags": [1]}', "one of its tags is not a string, or empty"),
        ('{"words": [" "], "tags": ["O"]}', "one of its words is not a string, or empty"),
    ],
)
def test_rows_that_are_no_tagged_words_are_named(tmp_path: Path, row: str, fault: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"words": ["a"], "tags": ["O"]}}\n{row}\n')
    with pytest.raises(DataError, match=fault) as caught:
        load(tmp_path / "a.jsonl")
    assert "a.jsonl:2" in str(caught.value)


def test_texts_are_no_tagged_words(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("words,tags\na,O\n")
    with pytest.raises(DataError, match=r"unknown extension.*\.conll"):
        load(tmp_path / "a.csv")


def test_a_sample_of_another_layout_is_refused() -> None:
    with pytest.raises(DataError, match="rows are text, the task's are words"):
        load_rows("sample://reuters-r8/train", "words", "tags", 1000, "words")
