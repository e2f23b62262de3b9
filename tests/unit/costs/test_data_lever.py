from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.costs.data_lever import LearningPoint, learning_steps
from equipoise.errors import InputError
from equipoise.runs import Figure


def point(rows: int, metric: float, core_s: float) -> LearningPoint:
    return LearningPoint(
        rows=rows, metric=Figure(value=metric, low=metric - 0.01, high=metric + 0.01, n=100), core_s=core_s
    )


def test_the_step_of_the_page_by_hand() -> None:
    [step] = learning_steps(
        [point(500, 0.90, 100), point(1000, 0.92, 200)], usd_per_label=0.10, core_second_usd=0.0000142556
    )

    assert step.points == pytest.approx(2)
    assert step.label_usd == pytest.approx(50)
    assert step.points_per_label_usd == pytest.approx(0.04)
    assert step.compute_usd == pytest.approx(0.00142556)
    assert step.points_per_compute_usd == pytest.approx(1403, abs=0.5)


def test_a_step_that_took_no_longer_has_no_price_in_compute() -> None:
    [step] = learning_steps([point(5, 0.9, 50), point(10, 0.8, 40)], usd_per_label=1, core_second_usd=1)

    assert (step.points, step.compute_usd) == (pytest.approx(-10), 0)
    assert step.points_per_compute_usd is None


def test_points_that_do_not_rise_are_refused() -> None:
    with pytest.raises(InputError, match="must rise in rows"):
        learning_steps([point(10, 0.9, 50), point(10, 0.8, 40)], usd_per_label=1, core_second_usd=1)


@given(
    metrics=st.lists(st.floats(0, 1), min_size=2, max_size=6),
    price=st.floats(0.01, 10),
)
def test_steps_add_up_to_the_whole_way(metrics: list[float], price: float) -> None:
    points = [point(10 * (index + 1), metric, 5.0 * index) for index, metric in enumerate(metrics)]
    steps = learning_steps(points, usd_per_label=price, core_second_usd=0.001)

    assert sum(step.points for step in steps) == pytest.approx(100 * (metrics[-1] - metrics[0]), abs=1e-9)
    assert sum(step.label_usd for step in steps) == pytest.approx(10 * (len(metrics) - 1) * price)
