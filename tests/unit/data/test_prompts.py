from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config import RunConfig
from equipoise.data import corrupt_rows, load_rows, prepare_data, with_prompt
from equipoise.errors import DataError

Config = Callable[..., RunConfig]

PAIRS = [(f"question {n}", f"answer {n}") for n in range(20)]


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], str]:
    """`files(".csv")`: the pairs in the columns `ask` and `say`."""
    import pyarrow as pa
    from pyarrow import parquet

    def write(extension: str) -> str:
        path = tmp_path / f"pairs{extension}"
        if extension == ".csv":
            path.write_text("ask,say\n" + "".join(f"{a},{s}\n" for a, s in PAIRS), encoding="utf-8")
        elif extension == ".jsonl":
            lines = [json.dumps({"ask": a, "say": s}) for a, s in PAIRS]
            path.write_text("\n".join(lines), encoding="utf-8")
        else:
            asked, said = zip(*PAIRS, strict=True)
            parquet.write_table(pa.table({"ask": list(asked), "say": list(said)}), path)
        return str(path)

    return write


@pytest.mark.parametrize("extension", [".csv", ".jsonl", ".parquet"])
def test_prompts_and_texts_come_from_two_columns(files: Callable[[str], str], extension: str) -> None:
    rows = load_rows(files(extension), "say", "label", 1000, "prompt", "ask")
    assert rows.inputs == PAIRS
    assert set(rows.labels) == {""}
    alone = load_rows(files(extension), "say", "label", 1000, "prompt")
    assert alone.inputs == [("", text) for _, text in PAIRS]


@pytest.mark.parametrize("extension", [".csv", ".jsonl", ".parquet"])
def test_a_missing_column_of_prompts_is_named_by_its_own_key(
    files: Callable[[str], str], extension: str
) -> None:
    with pytest.raises(DataError, match=r"no column 'asks'.*data\.prompt_column"):
        load_rows(files(extension), "say", "label", 1000, "prompt", "asks")


def test_labelled_texts_of_a_sample_are_plain_texts(reuters: str) -> None:
    labelled = load_rows(f"{reuters}/test", "text", "label", 1 << 20)
    plain = load_rows(f"{reuters}/test", "text", "label", 1 << 20, "prompt")
    assert plain.inputs == [("", text) for text in labelled.inputs]
    with pytest.raises(DataError, match="the sample's rows are words"):
        load_rows("sample://conll2003/test", "text", "label", 1 << 20, "prompt")


def test_splits_of_prompts_have_no_labels_and_may_be_cut(
    run_config: Config, files: Callable[[str], str]
) -> None:
    source = files(".jsonl")
    data = {"train": source, "test": source, "text_column": "say", "prompt_column": "ask"}
    found = prepare_data(run_config(data={**data, "deduplicate": False}), "prompt")
    assert found.labels == ()
    assert (len(found.train), len(found.validation), len(found.test)) == (18, 2, 20)
    first, *_ = found.report.sentences()
    assert first == "18 train, 2 validation, 20 test rows; no labels."
    assert not any("class" in sentence for sentence in found.report.sentences())
    cut = {"train_rows": 9, "test_rows": 8, "validation_share": 0.45, "validation_rows": 8}
    part = prepare_data(run_config(data={**data, "deduplicate": False, **cut}), "prompt")
    assert (len(part.train), len(part.validation), len(part.test)) == (9, 8, 8)
    again = prepare_data(run_config(data={**data, "deduplicate": False, **cut}), "prompt")
    assert part.test.inputs == again.test.inputs


TEXTS = st.text(st.sampled_from("ab \n\t"), max_size=30)


@given(prompt=TEXTS, text=TEXTS)
def test_halves_are_the_text_again(prompt: str, text: str) -> None:
    before, after = with_prompt((prompt, text))
    assert before + after == prompt + text
    if prompt.strip():
        assert (before, after) == (prompt, text)
    elif len(text.split()) > 1:
        assert before.strip()
        assert after.strip()


def test_halves_are_cut_between_words_near_the_middle() -> None:
    assert with_prompt(("", "one two three four")) == ("one two", " three four")
    assert with_prompt(("", "word")) == ("", "word")


def test_a_corruption_alters_the_prompt_alone() -> None:
    rows = corrupt_rows([("tell me about the parcel", " it is late")], "case", 0.2, seed=1)
    [(prompt, text)] = rows
    assert prompt != "tell me about the parcel"
    assert text == " it is late"
