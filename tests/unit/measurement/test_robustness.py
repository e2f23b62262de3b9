from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from equipoise.config.model import ModelConfig
from equipoise.data import CORRUPTIONS, with_prompt
from equipoise.engines import Predictor, open_engine
from equipoise.measurement.robustness import CorruptedRows, Robustness, corrupt, measure_robustness
from equipoise.tasks import Arrays
from equipoise.tasks.text_classification import TextClassification
from equipoise.tasks.text_generation import TextGeneration

Labelled = list[tuple[str, str]]


@pytest.fixture
def texts(intent_rows: Callable[[int, int], Labelled]) -> list[str]:
    return [text for text, _ in intent_rows(60, 3)]


@pytest.mark.parametrize(("rows", "per_row"), [(24, 1), (24, 3), (36, 5), (12, 12)])
def test_every_corruption_gets_as_many_rows_and_every_row_as_many_corruptions(
    texts: list[str], rows: int, per_row: int
) -> None:
    found = corrupt(texts, layout="text", rows=rows, per_row=per_row, seed=1)
    assert len(found.inputs) == len(found.rows) == len(found.kinds) == rows * per_row
    by_kind = Counter(found.kinds)
    assert len(by_kind) == len(CORRUPTIONS)
    assert set(by_kind.values()) == {rows * per_row // len(CORRUPTIONS)}
    assert set(Counter(found.rows.tolist()).values()) == {per_row}
    assert len(set(zip(found.rows.tolist(), found.kinds, strict=True))) == rows * per_row


def test_a_number_that_does_not_divide_is_shared_out_within_one(texts: list[str]) -> None:
    counts = Counter(corrupt(texts, layout="text", rows=17, per_row=2, seed=1).kinds).values()
    assert max(counts) - min(counts) <= 1


def test_left_open_it_is_every_corruption_on_every_row(texts: list[str]) -> None:
    found = corrupt(texts, layout="text", rows=None, per_row=None, seed=1)
    assert Counter(found.rows.tolist()) == dict.fromkeys(range(len(texts)), len(CORRUPTIONS))


def test_most_texts_are_changed_and_each_comes_from_its_row(texts: list[str]) -> None:
    found = corrupt(texts, layout="text", rows=24, per_row=4, seed=1)
    changed = [text != texts[row] for text, row in zip(found.inputs, found.rows, strict=True)]
    assert np.mean(changed) > 0.95
    assert all(abs(len(t) - len(texts[r])) < 12 for t, r in zip(found.inputs, found.rows, strict=True))


def test_the_seed_decides_rows_and_corruptions(texts: list[str]) -> None:
    first, again, other = (corrupt(texts, layout="text", rows=24, per_row=2, seed=seed) for seed in (1, 1, 2))
    assert first.inputs == again.inputs
    assert first.rows.tolist() == again.rows.tolist()
    assert first.rows.tolist() != other.rows.tolist()


ROWS = 40


@pytest.fixture
def corrupted() -> CorruptedRows:
    """Two corruptions of each of 40 rows."""
    kinds = ["typos 10%"] * ROWS + ["case 20%"] * ROWS
    rows = np.concatenate([np.arange(ROWS), np.arange(ROWS)])
    return CorruptedRows([f"{kind} {row}" for kind, row in zip(kinds, rows, strict=True)], rows, kinds)


LABELS = np.arange(ROWS) % 2
NAMES = [str(label) for label in LABELS]


class Numbers(TextClassification):
    """Labels `0` and `1`; a text's arrays are the logits of the label that its number tells."""

    def __init__(self) -> None:
        self.labels = ("0", "1")
        self.inputs = ("told",)

    def encode(self, inputs: Sequence[str]) -> Arrays:
        return {"told": np.array([[i, text.startswith("case")] for i, text in map(_numbered, inputs)])}

    def lengths(self, inputs: Sequence[str]) -> NDArray[np.int64]:
        return np.array([len(text) for text in inputs])


def _numbered(text: str) -> tuple[int, str]:
    return int(text.rsplit(" ", 1)[1]), text


class Fallible:
    """Right, but on some (row, whether it is the corruption `case`)."""

    def __init__(self, wrong: Callable[[int, bool], bool]) -> None:
        self.wrong = wrong

    def run(self, inputs: Arrays) -> Arrays:
        said = [row % 2 ^ int(self.wrong(row, bool(case))) for row, case in inputs["told"].tolist()]
        return {"logits": np.eye(2, dtype=np.float32)[said]}


def measured(
    corrupted: CorruptedRows, right_when_clean: NDArray[np.bool_], wrong: Callable[[int, bool], bool]
) -> Robustness:
    clean = np.stack([right_when_clean.astype(float), np.ones(ROWS)], axis=1)
    return measure_robustness(
        corrupted, Predictor(Numbers(), Fallible(wrong)), clean, NAMES, resamples=200, seed=1
    )


def test_what_is_kept_is_a_share_of_the_clean_metric(corrupted: CorruptedRows) -> None:
    # 30 of 40 rows are right when clean; under typos all of those stay right, under case none does.
    found = measured(corrupted, np.arange(ROWS) < 30, lambda row, case: case or row >= 30)
    assert found.by_corruption == {"typos 10%": 0.75, "case 20%": 0.0}
    assert (found.worst, found.worst_metric) == ("case 20%", 0.0)
    # In every resample of rows, exactly half of what was right stays right.
    assert (found.share.value, found.share.low, found.share.high) == (0.5, 0.5, 0.5)
    assert found.share.n == ROWS


def test_an_untouched_classifier_keeps_everything(corrupted: CorruptedRows) -> None:
    found = measured(corrupted, np.ones(ROWS, dtype=bool), lambda *_: False)
    assert found.share.value == found.share.low == found.share.high == 1.0


def test_nothing_right_when_clean_is_no_robustness_and_no_division(corrupted: CorruptedRows) -> None:
    found = measured(corrupted, np.zeros(ROWS, dtype=bool), lambda *_: True)
    assert found.share.value == 0.0


def test_words_keep_their_number_and_order() -> None:
    sentences = [["Where", "is", "my", "parcel"], ["Thank", "you"]]
    found = corrupt(sentences, layout="words", rows=None, per_row=None, seed=1)
    assert not any(kind.startswith("word_order") for kind in found.kinds)
    for words, row in zip(found.inputs, found.rows, strict=True):
        assert len(words) == len(sentences[row])


def test_a_text_without_a_prompt_is_held_against_its_own_second_half(tiny_llama: Path) -> None:
    task = TextGeneration.create(tiny_llama, (), ModelConfig(teacher=str(tiny_llama), max_length=48))
    predictor = Predictor(task, open_engine("torch", tiny_llama, "fp32"))
    texts = [("", f"please tell me about parcel {n} and the invoice for today") for n in range(6)]
    asked = [with_prompt(text) for text in texts]
    labels = [""] * len(texts)
    options: dict[str, Any] = {"resamples": 100, "seed": 1}
    found, given = (
        measure_robustness(
            corrupt(rows, layout="prompt", rows=4, per_row=2, seed=3),
            predictor,
            task.tally(predictor.answers(rows), np.empty(0, np.int64), len(rows)),
            labels,
            **options,
        )
        for rows in (texts, asked)
    )
    assert found == given
    assert found.share.value != 1
