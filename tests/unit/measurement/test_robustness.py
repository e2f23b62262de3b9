from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from equipoise.data import CORRUPTIONS
from equipoise.measurement.robustness import CorruptedRows, corrupt, measure_robustness

Labelled = list[tuple[str, str]]


@pytest.fixture
def texts(intent_rows: Callable[[int, int], Labelled]) -> list[str]:
    return [text for text, _ in intent_rows(60, 3)]


@pytest.mark.parametrize(("rows", "per_row"), [(24, 1), (24, 3), (36, 5), (12, 12)])
def test_every_corruption_gets_as_many_rows_and_every_row_as_many_corruptions(
    texts: list[str], rows: int, per_row: int
) -> None:
    found = corrupt(texts, rows=rows, per_row=per_row, seed=1)
    assert len(found.texts) == len(found.rows) == len(found.kinds) == rows * per_row
    by_kind = Counter(found.kinds)
    assert len(by_kind) == len(CORRUPTIONS)
    assert set(by_kind.values()) == {rows * per_row // len(CORRUPTIONS)}
    assert set(Counter(found.rows.tolist()).values()) == {per_row}
    assert len(set(zip(found.rows.tolist(), found.kinds, strict=True))) == rows * per_row


def test_a_number_that_does_not_divide_is_shared_out_within_one(texts: list[str]) -> None:
    counts = Counter(corrupt(texts, rows=17, per_row=2, seed=1).kinds).values()
    assert max(counts) - min(counts) <= 1


def test_left_open_it_is_every_corruption_on_every_row(texts: list[str]) -> None:
    found = corrupt(texts, rows=None, per_row=None, seed=1)
    assert Counter(found.rows.tolist()) == dict.fromkeys(range(len(texts)), len(CORRUPTIONS))


def test_most_texts_are_changed_and_each_comes_from_its_row(texts: list[str]) -> None:
    found = corrupt(texts, rows=24, per_row=4, seed=1)
    changed = [text != texts[row] for text, row in zip(found.texts, found.rows, strict=True)]
    assert np.mean(changed) > 0.95
    assert all(abs(len(t) - len(texts[r])) < 12 for t, r in zip(found.texts, found.rows, strict=True))


def test_the_seed_decides_rows_and_corruptions(texts: list[str]) -> None:
    first, again, other = (corrupt(texts, rows=24, per_row=2, seed=seed) for seed in (1, 1, 2))
    assert first.texts == again.texts
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


def answering(wrong: Callable[[str], bool]) -> Callable[[Sequence[str]], NDArray[np.int64]]:
    """A classifier that is right but on some texts."""

    def predict(texts: Sequence[str]) -> NDArray[np.int64]:
        truth = np.array([int(text.rsplit(" ", 1)[1]) % 2 for text in texts])
        return np.where([wrong(text) for text in texts], 1 - truth, truth)

    return predict


def test_what_is_kept_is_a_share_of_the_clean_metric(corrupted: CorruptedRows) -> None:
    # 30 of 40 rows are right when clean; under typos all of those stay right, under case none does.
    clean = np.where(np.arange(ROWS) < 30, LABELS, 1 - LABELS)
    found = measure_robustness(
        corrupted,
        clean,
        LABELS,
        answering(lambda text: text.startswith("case") or int(text.rsplit(" ", 1)[1]) >= 30),
        resamples=200,
        seed=1,
    )
    assert found.by_corruption == {"typos 10%": 0.75, "case 20%": 0.0}
    assert (found.worst, found.worst_metric) == ("case 20%", 0.0)
    # In every resample of rows, exactly half of what was right stays right.
    assert (found.share.value, found.share.low, found.share.high) == (0.5, 0.5, 0.5)
    assert found.share.n == ROWS


def test_an_untouched_classifier_keeps_everything(corrupted: CorruptedRows) -> None:
    found = measure_robustness(corrupted, LABELS, LABELS, answering(lambda _: False), resamples=100, seed=1)
    assert found.share.value == found.share.low == found.share.high == 1.0


def test_nothing_right_when_clean_is_no_robustness_and_no_division(corrupted: CorruptedRows) -> None:
    found = measure_robustness(
        corrupted, 1 - LABELS, LABELS, answering(lambda _: True), resamples=100, seed=1
    )
    assert found.share.value == 0.0
