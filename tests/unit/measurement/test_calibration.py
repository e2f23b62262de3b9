from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from equipoise.measurement.bootstrap import draw_resamples
from equipoise.measurement.calibration import calibration_error, fit_temperature
from equipoise.tasks.text_classification import softmax

ROWS = 6000


def sample(seed: int = 1, classes: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits, and labels drawn from exactly the distribution that they state."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (ROWS, classes)).astype(np.float32)
    chances = softmax(logits).cumsum(axis=1)
    return logits, (rng.random((ROWS, 1)) > chances).sum(axis=1).clip(max=classes - 1)


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
