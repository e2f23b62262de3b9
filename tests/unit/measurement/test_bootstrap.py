from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from equipoise.measurement.bootstrap import (
    draw_resamples,
    interval,
    resampled_sums,
    statistic_figure,
    sums_figure,
)
from equipoise.runs import Figure


def mean_figure(values: NDArray[np.float64], draws: NDArray[np.int64]) -> Figure:
    return statistic_figure(values, lambda v: v.mean(axis=-1), draws)


def test_intervals_of_a_mean_cover_it_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    draws = draw_resamples(150, 400, seed=2)
    figures = [mean_figure(rng.normal(3.0, 1.0, 150), draws) for _ in range(400)]
    covered = np.mean([figure.low <= 3.0 <= figure.high for figure in figures])
    assert 0.91 < covered < 0.98
    widths = [figure.high - figure.low for figure in figures]
    assert np.mean(widths) == pytest.approx(2 * 1.96 / np.sqrt(150), rel=0.05)


def test_a_share_of_ten_rows_is_known_badly_and_of_ten_thousand_well() -> None:
    few, many = np.array([1.0, 0.0] * 5), np.array([1.0, 0.0] * 5000)
    wide, narrow = (mean_figure(v, draw_resamples(len(v), 300, seed=1)) for v in (few, many))
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 0.4
    assert narrow.high - narrow.low < 0.03
    assert (wide.n, narrow.n) == (10, 10_000)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).random(80)
    first, again, other = (mean_figure(values, draw_resamples(80, 200, seed)) for seed in (7, 7, 8))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_values_that_do_not_vary_have_no_width() -> None:
    figure = mean_figure(np.full(30, 0.25), draw_resamples(30, 100, seed=1))
    assert (figure.value, figure.low, figure.high) == (0.25, 0.25, 0.25)


def test_a_percentile_has_an_interval_too() -> None:
    values = np.random.default_rng(3).exponential(2.0, 500)
    figure = statistic_figure(values, lambda v: np.percentile(v, 50, axis=-1), draw_resamples(500, 300, 1))
    assert figure.value == np.percentile(values, 50)
    assert figure.low < figure.value < figure.high
    assert figure.low < 2.0 * np.log(2) < figure.high


def test_the_interval_holds_95_of_100_resamples() -> None:
    figure = interval(50.0, np.arange(101.0), rows=9)
    assert (figure.low, figure.high, figure.n) == (2.5, 97.5, 9)


def test_sums_over_resamples_are_those_of_the_drawn_rows() -> None:
    counts = np.random.default_rng(1).random((40, 3))
    draws = draw_resamples(40, 25, seed=2)
    np.testing.assert_allclose(resampled_sums(counts, draws), counts[draws].sum(axis=1))


def test_a_ratio_of_sums_has_an_interval_over_rows() -> None:
    rng = np.random.default_rng(4)
    places = rng.integers(1, 9, 300).astype(float)
    hits = rng.binomial(places.astype(int), 0.6).astype(float)
    counts = np.stack([hits, places], axis=1)
    figure = sums_figure(counts, lambda sums: sums[..., 0] / sums[..., 1], draw_resamples(300, 300, 1))
    assert figure.value == hits.sum() / places.sum()
    assert figure.low < 0.6 < figure.high
    assert figure.n == 300
