from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from seqeval.metrics import f1_score as entity_f1_score
from sklearn.metrics import accuracy_score, f1_score

from equipoise.measurement import quality as measured
from equipoise.measurement.bootstrap import draw_resamples
from equipoise.runs import Figure, Quality
from equipoise.tasks import Answers
from equipoise.tasks.text_classification import TextClassification
from equipoise.tasks.token_classification import TokenClassification

CLASSES = 5
PAIRS = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=80)


def columns(pairs: list[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    predicted, labels = np.array(pairs, dtype=np.int64).T
    return predicted, labels


class Classifier(TextClassification):
    """The metric alone; no text is encoded here."""

    def __init__(self, classes: int) -> None:
        self.labels = tuple(map(str, range(classes)))


def one_a_row(predicted: NDArray[np.int64], classes: int = CLASSES) -> Answers:
    return Answers(np.eye(classes, dtype=np.float32)[predicted], np.arange(len(predicted)))


def measure(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float, seed: int) -> Quality:
    return measured.measure_quality(
        Answers(logits, np.arange(len(logits))),
        labels,
        task=Classifier(logits.shape[1]),
        rows=len(logits),
        temperature=temperature,
        resamples=100,
        seed=seed,
    )


def paired_drop(
    teacher: NDArray[np.int64],
    candidate: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
) -> Figure:
    return measured.paired_drop(
        Classifier(CLASSES),
        one_a_row(teacher),
        one_a_row(candidate),
        labels,
        rows=len(labels),
        resamples=resamples,
        seed=seed,
    )


@given(pairs=PAIRS)
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = columns(pairs)
    quality = measure(np.eye(CLASSES, dtype=np.float32)[predicted], labels, 1.0, seed=1)
    assert quality.metric.value == pytest.approx(accuracy_score(labels, predicted))
    assert quality.macro_f1
    assert quality.macro_f1.value == pytest.approx(
        f1_score(labels, predicted, average="macro", zero_division=0)
    )
    assert quality.metric.low <= quality.metric.value <= quality.metric.high


@given(pairs=PAIRS, seed=st.integers(0, 99))
def test_each_resample_is_scored_as_scikit_learn_would(pairs: list[tuple[int, int]], seed: int) -> None:
    predicted, labels = columns(pairs)
    draws = draw_resamples(len(labels), 1, seed)
    figure = measured.macro_f1(one_a_row(predicted), labels, CLASSES, len(labels), draws)
    expected = f1_score(labels[draws[0]], predicted[draws[0]], average="macro", zero_division=0)
    assert figure.low == figure.high == pytest.approx(expected)


def test_figures_repeat_with_the_seed() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(200, 3)).astype(np.float32), rng.integers(0, 3, 200)
    first, again, other = (measure(logits, labels, 1.3, seed) for seed in (5, 5, 6))
    assert first == again != other
    assert first.temperature == 1.3
    assert first.metric.n == 200


def test_a_model_loses_nothing_against_itself() -> None:
    rng = np.random.default_rng(1)
    predicted, labels = rng.integers(0, 3, (2, 300))
    drop = paired_drop(predicted, predicted, labels, resamples=200, seed=1)
    assert (drop.value, drop.low, drop.high, drop.n) == (0.0, 0.0, 0.0, 300)


def test_the_drop_is_the_difference_of_accuracies_and_its_interval_is_paired() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 2000)
    teacher = np.where(rng.random(2000) < 0.7, labels, 1 - labels)
    candidate = teacher.copy()
    lost = np.flatnonzero(teacher == labels)[:40]
    candidate[lost] = 1 - labels[lost]
    drop = paired_drop(teacher, candidate, labels, resamples=500, seed=1)
    assert drop.value == pytest.approx(accuracy_score(labels, teacher) - accuracy_score(labels, candidate))
    assert 0 < drop.low < 0.02 < drop.high
    # Two accuracies of 70% over 2,000 rows, unpaired, would be known to 0.057 only.
    assert drop.high - drop.low < 0.02


def test_a_better_candidate_has_a_drop_below_nothing() -> None:
    labels = np.zeros(50, dtype=np.int64)
    drop = paired_drop(np.ones(50, dtype=np.int64), labels, labels, resamples=100, seed=1)
    assert drop.value == drop.low == drop.high == -1.0


TAGS = ("O", "B-A", "I-A", "B-B", "I-B")


class Tagger(TokenClassification):
    """The metric alone; no text is encoded here."""

    def __init__(self) -> None:
        self.labels = TAGS


SENTENCES = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7), min_size=1, max_size=12
)


@given(sentences=SENTENCES)
def test_entity_f1_is_that_of_seqeval(sentences: list[list[tuple[int, int]]]) -> None:
    row_of = np.repeat(np.arange(len(sentences)), [len(sentence) for sentence in sentences])
    predicted, truth = np.array([pair for sentence in sentences for pair in sentence]).T
    found = measured.measure_quality(
        Answers(np.eye(5, dtype=np.float32)[predicted], row_of),
        truth,
        task=Tagger(),
        rows=len(sentences),
        temperature=1.0,
        resamples=100,
        seed=1,
    )
    expected = entity_f1_score(
        [[TAGS[true] for _, true in sentence] for sentence in sentences],
        [[TAGS[said] for said, _ in sentence] for sentence in sentences],
        zero_division=0,
    )
    assert found.metric.value == pytest.approx(expected)
    assert found.metric.n == len(sentences)


def test_rows_without_a_place_count_as_rows() -> None:
    answers = Answers(np.eye(5, dtype=np.float32)[[1, 0]], np.array([0, 2]))
    tallied = Tagger().tally(answers, np.array([1, 0]), rows=3)
    assert tallied.tolist() == [[1, 2], [0, 0], [0, 0]]
    assert Tagger().metric(tallied.sum(axis=0)) == 1.0
    assert Tagger().metric(np.zeros(2)) == 0.0
