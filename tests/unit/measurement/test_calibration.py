from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from equipoise.measurement import calibration
from equipoise.measurement.bootstrap import draw_resamples
from equipoise.runs import Figure
from equipoise.tasks import Answers
from equipoise.tasks.scores import softmax

ROWS = 6000


def sample(seed: int = 1, classes: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits, and labels drawn from exactly the distribution that they state."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (ROWS, classes)).astype(np.float32)
    chances = softmax(logits).cumsum(axis=1)
    return logits, (rng.random((ROWS, 1)) > chances).sum(axis=1).clip(max=classes - 1)


def one_a_row(logits: NDArray[np.float32]) -> Answers:
    return Answers(logits, np.arange(len(logits)))


def calibration_error(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float, draws: NDArray[np.int64]
) -> Figure:
    return calibration.calibration_error(one_a_row(logits), labels, temperature, len(labels), draws)


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return calibration.fit_temperature(one_a_row(logits), labels)


DRAWS = draw_resamples(ROWS, 100, seed=1)


def test_scores_that_mean_what_they_say_have_no_error() -> None:
    logits, labels = sample()
    figure = calibration_error(logits, labels, 1.0, DRAWS)
    assert figure.value < 0.02
    assert figure.n == ROWS


@pytest.mark.parametrize("scale", [0.4, 3.0])
def test_too_sure_or_too_shy_is_an_error(scale: float) -> None:
    logits, labels = sample()
    figure = calibration_error(logits * np.float32(scale), labels, 1.0, DRAWS)
    assert figure.value > 0.1
    assert figure.low < figure.value < figure.high


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0, 8.0])
def test_the_fitted_temperature_undoes_a_scaling(scale: float) -> None:
    logits, labels = sample()
    scaled = logits * np.float32(scale)
    temperature = fit_temperature(scaled, labels)
    assert temperature == pytest.approx(scale, rel=0.06)
    assert calibration_error(scaled, labels, temperature, DRAWS).value < 0.02


def test_always_sure_and_always_wrong_is_the_largest_error() -> None:
    logits = np.array([[50.0, 0.0]] * 40, dtype=np.float32)
    draws = draw_resamples(40, 100, seed=1)
    assert calibration_error(logits, np.ones(40, dtype=np.int64), 1.0, draws).value == pytest.approx(1.0)
    assert calibration_error(logits, np.zeros(40, dtype=np.int64), 1.0, draws).value == pytest.approx(0.0)


def test_it_equals_a_plain_computation_over_15_bins_of_equal_mass() -> None:
    logits, labels = (part[:900] for part in sample(3))
    scores = softmax(logits * 2)
    confidence, correct = scores.max(axis=1), scores.argmax(axis=1) == labels
    bins = np.array_split(np.argsort(confidence, kind="stable"), 15)
    expected = sum(len(b) / 900 * abs(confidence[b].mean() - correct[b].mean()) for b in bins)
    draws = draw_resamples(900, 100, seed=1)
    assert calibration_error(logits, labels, 0.5, draws).value == pytest.approx(expected)


@pytest.mark.parametrize("rows", [1, 2, 14, 16])
def test_fewer_rows_than_bins_do(rows: int) -> None:
    logits, labels = (part[:rows] for part in sample())
    figure = calibration_error(logits, labels, 1.0, draw_resamples(rows, 100, seed=1))
    assert 0 <= figure.low <= figure.high <= 1
    assert 0.05 <= fit_temperature(logits, labels) <= 20


def test_an_open_vocabulary_has_no_temperature_and_counts_the_best_token_only() -> None:
    rng = np.random.default_rng(1)
    chances = rng.dirichlet((4.0, 2.0, 1.0), 3000)
    drawn = (rng.random((3000, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    # The first column is what is there: rows are told such that it is there as often as it says.
    kept = chances[drawn < 2]
    there = drawn[drawn < 2]
    logits = np.log(np.where(there[:, None] == 0, kept, kept[:, [1, 0, 2]])).astype(np.float32)
    answers = Answers(logits, np.arange(len(logits)), np.tile(np.int32([7, 8]), (len(logits), 1)))
    truth = np.full(len(logits), 7)
    assert calibration.fit_temperature(answers, truth) == 1.0
    draws = draw_resamples(len(logits), 100, seed=1)
    figure = calibration.calibration_error(answers, truth, 1.0, len(logits), draws)
    # What is left of the distribution never happens here, so the scores are too low by its share.
    assert 0.02 < figure.value < 0.2
