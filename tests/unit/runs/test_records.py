from __future__ import annotations

import pytest

from equipoise.runs import TOKEN_LIKELIHOOD, Figure, Quality


def quality(name: str, value: float, low: float, high: float) -> Quality:
    error = Figure(value=0.1, low=0.05, high=0.2, n=9)
    return Quality(
        metric_name=name, metric=Figure(value=value, low=low, high=high, n=9), calibration_error=error
    )


def test_perplexity_is_one_over_the_likelihood_with_its_interval_turned() -> None:
    found = quality(TOKEN_LIKELIHOOD, 0.05, 0.04, 0.08).perplexity
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((20, 12.5, 25))
    assert found.n == 9


@pytest.mark.parametrize(("name", "low"), [("accuracy", 0.5), (TOKEN_LIKELIHOOD, 0.0)])
def test_other_metrics_and_a_likelihood_of_nothing_have_none(name: str, low: float) -> None:
    assert quality(name, 0.9, low, 1.0).perplexity is None
