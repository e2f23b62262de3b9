from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import f1_score, recall_score

from equipoise.runs.predictions import Predictions
from equipoise.search.comparison import compare_predictions, record

LABELS = ("acq", "earn", "ship")
CLASSES = st.integers(1, 60).flatmap(
    lambda rows: st.tuples(*[arrays(np.int64, rows, elements=st.integers(0, 2)) for _ in range(3)])
)


def say(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> Predictions:
    return Predictions.of_rows(truth, predicted)


@given(drawn=CLASSES)
def test_recall_and_f1_are_those_of_scikit_learn(
    drawn: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
) -> None:
    truth, first, second = drawn
    found = compare_predictions(say(truth, first), say(truth, second), LABELS, resamples=100, seed=1)
    numbers = {label: number for number, label in enumerate(LABELS)}
    assert {numbers[c.label] for c in found.classes} == set(truth) | set(first) | set(second)
    for entry in found.classes:
        only = [numbers[entry.label]]
        for side, predicted in enumerate((first, second)):
            options = {"labels": only, "average": "macro", "zero_division": 0}
            assert entry.recall[side] == pytest.approx(recall_score(truth, predicted, **options))
            assert entry.f1[side] == pytest.approx(f1_score(truth, predicted, **options))
        assert entry.places == (truth == only[0]).sum()
        assert entry.f1_difference.value == pytest.approx(entry.f1[1] - entry.f1[0])
        assert (entry.recall_difference is None) == (entry.places == 0)


@given(drawn=CLASSES)
def test_swapping_the_sides_turns_every_difference_round(
    drawn: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
) -> None:
    truth, first, second = drawn
    there = compare_predictions(say(truth, first), say(truth, second), LABELS, resamples=100, seed=1)
    back = compare_predictions(say(truth, second), say(truth, first), LABELS, resamples=100, seed=1)
    assert (there.only_first, there.only_second) == (back.only_second, back.only_first)
    assert there.agree == back.agree
    turned = {entry.label: entry.f1_difference for entry in back.classes}
    for entry in there.classes:
        other = turned[entry.label]
        assert entry.f1_difference.value == pytest.approx(-other.value)
        assert entry.f1_difference.low == pytest.approx(-other.high)
        assert entry.f1_difference.high == pytest.approx(-other.low)


def test_a_candidate_against_itself_differs_in_nothing() -> None:
    truth = np.array([0, 1, 2, 2, 1])
    said = say(truth, np.array([0, 1, 1, 2, 0]))
    found = compare_predictions(said, said, LABELS, resamples=100, seed=1)
    assert found.agree == 1
    assert found.accuracy_difference.model_dump() == {"value": 0, "low": 0, "high": 0, "n": 5}
    assert all(c.f1_difference.low == c.f1_difference.high == 0 for c in found.classes)


def test_what_is_lost_most_comes_first_and_its_interval_shows_it() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 600)
    worse = np.where((truth == 2) & (rng.random(600) < 0.5), 1, truth)
    found = compare_predictions(say(truth, truth), say(truth, worse), LABELS, resamples=500, seed=1)
    assert [c.label for c in found.classes] == ["ship", "earn", "acq"]
    ship, _, acq = found.classes
    assert ship.recall_difference is not None
    assert ship.recall_difference.high < -0.3
    assert acq.f1_difference.value == acq.f1_difference.high == 0
    assert found.only_first == (truth != worse).sum()
    # Far narrower than two intervals that are not paired: 600 rows, a quarter of them lost.
    assert found.accuracy_difference.high - found.accuracy_difference.low < 0.08


def test_places_of_one_row_are_drawn_together() -> None:
    # Ten rows of fifty words; in each row either all words go wrong or none.
    row_of = np.repeat(np.arange(10, dtype=np.int32), 50)
    truth = np.zeros(500, dtype=np.int32)
    wrong = np.where(row_of < 5, 1, 0).astype(np.int32)
    tagged = [Predictions(row_of, truth, said) for said in (truth, wrong)]
    alone = [say(truth, said) for said in (truth.astype(np.int64), wrong.astype(np.int64))]
    by_row, by_place = (
        compare_predictions(*pair, LABELS, resamples=500, seed=1).accuracy_difference
        for pair in (tagged, alone)
    )
    assert by_row.value == by_place.value == -0.5
    assert (by_row.n, by_place.n) == (10, 500)
    assert by_row.high - by_row.low > 4 * (by_place.high - by_place.low)


def test_different_rows_are_not_compared() -> None:
    first = say(np.array([0, 1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="different rows"):
        compare_predictions(first, say(np.array([1, 1]), np.array([0, 1])), LABELS, resamples=100, seed=1)


def test_a_class_without_a_name_goes_by_its_number_and_all_of_it_is_json() -> None:
    truth = np.array([0, 7])
    found = record(compare_predictions(say(truth, truth), say(truth, truth), ("a",), resamples=100, seed=1))
    assert [entry["label"] for entry in found["classes"]] == ["7", "a"]
    assert json.loads(json.dumps(found)) == found


def test_tokens_are_no_classes() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 50_000, 400)
    second = np.where(rng.random(400) < 0.5, truth, 7)
    found = compare_predictions(say(truth, truth), say(truth, second), (), resamples=100, seed=1)
    assert found.classes == ()
    assert found.accuracy_difference.value == pytest.approx((second == truth).mean() - 1)
