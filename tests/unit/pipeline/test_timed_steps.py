from __future__ import annotations

import pytest

from equipoise.data import Rows
from equipoise.pipeline.timed_steps import Judging, _some, _training


def test_what_is_not_even_steps_is_start() -> None:
    """200 rows in 20 s of loop, of which 12 s at the pace of the second half: the other 8 s are start."""
    figures = {"rows_per_s": 10.0, "loop_s": 20.0, "settled_rows_per_s": 200 / 12}
    found = _training(50.0, figures)

    assert found.row_s == pytest.approx(0.06)
    assert found.start_s == pytest.approx(38)
    assert found.seconds(200) == pytest.approx(50)
    assert found.seconds(2000) == pytest.approx(38 + 120)


def test_a_training_is_never_shorter_than_its_rows() -> None:
    assert _training(10.0, {"rows_per_s": 20.0, "loop_s": 10.0, "settled_rows_per_s": 10.0}).start_s == 0


def test_rows_and_depth_scale_what_depends_on_them() -> None:
    found = Judging(fixed_s=8, row_s=0.01, speed_s=6)

    assert found.seconds(1000, 1.0) == pytest.approx(8 + 10 + 6)
    assert found.seconds(2000, 1.0) == pytest.approx(8 + 20 + 6)
    assert found.seconds(1000, 0.5) == pytest.approx(8 + 8)


def test_the_same_few_rows_are_drawn_in_their_order() -> None:
    rows = Rows([f"text {number}" for number in range(50)], list(range(50)))
    few = _some(rows, 10, seed=3)

    assert len(few) == 10
    assert list(few.labels) == sorted(few.labels)
    assert list(few.labels) == list(_some(rows, 10, seed=3).labels)
    assert list(few.labels) != list(_some(rows, 10, seed=4).labels)
    assert len(_some(rows, 80, seed=3)) == 50
