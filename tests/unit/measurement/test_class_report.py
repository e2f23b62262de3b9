from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from seqeval.metrics import classification_report as entity_report
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score

from equipoise.measurement.bootstrap import draw_resamples
from equipoise.measurement.class_report import (
    ClassFigures,
    find_confusions,
    report_classes,
    report_entities,
    top_share,
)
from equipoise.tasks import Answers

LABELS = ("a", "b", "c", "d")
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)
TAGS = ("O", "B-A", "I-A", "B-B", "I-B")


def one_a_row(predicted: NDArray[np.int64], classes: int) -> Answers:
    return Answers(np.eye(classes, dtype=np.float32)[predicted], np.arange(len(predicted)))


def values(figures: ClassFigures) -> tuple[float, float, float]:
    return figures.precision.value, figures.recall.value, figures.f1.value


@given(pairs=PAIRS)
def test_it_is_the_report_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, truth = np.array(pairs).T
    draws = draw_resamples(len(truth), 100, seed=1)
    found = report_classes(one_a_row(predicted, 4), truth, LABELS, rows=len(truth), draws=draws)
    present = sorted(set(predicted) | set(truth))
    assert list(found.classes) == [LABELS[index] for index in present]
    scores = precision_recall_fscore_support(truth, predicted, labels=present, zero_division=0)
    for place, index in enumerate(present):
        assert values(found.classes[LABELS[index]]) == pytest.approx([part[place] for part in scores[:3]])
        assert found.classes[LABELS[index]].support == scores[3][place]
    for name in ("micro", "macro", "weighted"):
        expected = precision_recall_fscore_support(
            truth, predicted, labels=present, average=name, zero_division=0
        )
        figures: ClassFigures = getattr(found, name)
        assert values(figures) == pytest.approx(expected[:3])
        assert figures.f1.low - 1e-9 <= figures.f1.high


@given(
    sentences=st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6),
        min_size=1,
        max_size=10,
    )
)
def test_entities_are_reported_as_seqeval_does(sentences: list[list[tuple[int, int]]]) -> None:
    row_of = np.repeat(np.arange(len(sentences)), [len(sentence) for sentence in sentences])
    predicted, truth = np.array([pair for sentence in sentences for pair in sentence]).T
    answers = Answers(np.eye(5, dtype=np.float32)[predicted], row_of)
    draws = draw_resamples(len(sentences), 100, seed=1)
    found = report_entities(answers, truth, TAGS, rows=len(sentences), draws=draws)
    said, true = ([[TAGS[pair[side]] for pair in sentence] for sentence in sentences] for side in (0, 1))
    if not any(tag != "O" for sentence in (*said, *true) for tag in sentence):
        assert not found.classes
        return
    expected = entity_report(true, said, output_dict=True, zero_division=0)
    for kind, figures in found.classes.items():
        # The reference lists no kind that is only predicted.
        if kind in expected:
            row = expected[kind]
            assert values(figures) == pytest.approx((row["precision"], row["recall"], row["f1-score"]))
            assert figures.support == row["support"]
    assert found.micro.f1.value == pytest.approx(expected["micro avg"]["f1-score"])


def test_what_stands_for_nothing_is_left_out() -> None:
    predicted, truth = np.array([0, 0, 1]), np.array([0, 1, 1])
    draws = draw_resamples(3, 100, seed=1)
    found = report_classes(one_a_row(predicted, 4), truth, LABELS, rows=3, draws=draws, left_out=("a",))
    assert list(found.classes) == ["b"]
    assert found.micro.recall.value == 0.5


def test_confusions_are_the_most_frequent_first() -> None:
    truth = np.array([0, 0, 0, 1, 2, 2])
    predicted = np.array([1, 1, 0, 1, 0, 0])
    found = find_confusions(predicted, truth, LABELS, most=5)
    assert [(pair.truth, pair.predicted, pair.count) for pair in found] == [("a", "b", 2), ("c", "a", 2)]
    assert len(find_confusions(predicted, truth, LABELS, most=1)) == 1


@pytest.mark.parametrize("places", [1, 2, 3])
def test_top_places_are_those_of_scikit_learn(places: int) -> None:
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(size=(80, 4)).astype(np.float32), rng.integers(0, 4, 80)
    found = top_share(Answers(logits, np.arange(80)), truth, places).mean()
    assert found == pytest.approx(top_k_accuracy_score(truth, logits, k=places, labels=range(4)))
