from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.costs.estimate import STAGES, RunSize, SeenRun, estimate_run, scaled_seconds
from equipoise.errors import EquipoiseError

ROWS = st.floats(10, 1e6)
SIZES = st.builds(
    RunSize,
    teacher_rows=ROWS,
    teacher_depth=st.just(6),
    output_rows=ROWS,
    student_rows=ROWS,
    student_depths=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    candidates=st.integers(1, 40),
    judged_rows=ROWS,
    workers=st.just(2),
    cores=st.just(2),
    row_tokens=st.floats(0, 512),
    batch_size=st.integers(1, 256),
)
SIZE = RunSize(
    teacher_rows=3000, teacher_depth=6, output_rows=3500, student_rows=4500, student_depths=(1, 2),
    candidates=10, judged_rows=2000, workers=2, cores=2,
)  # fmt: skip


def seen(size: RunSize = SIZE, **changes: Any) -> SeenRun:
    values: dict[str, Any] = {
        "run": "runs/a",
        "kind": "text_classification",
        "fingerprint": "abc",
        "size": size,
        "seconds": {"teacher": 130, "outputs": 35, "students": 120, "candidates": 200, "rest": 90},
        "start_s": 30.0,
        "student_start_s": 20.0,
    }
    return SeenRun(**{**values, **changes})


def predict(size: RunSize, *runs: SeenRun) -> Any:
    return estimate_run(size, runs, fingerprint="abc", core_second_usd=0.001, node_usd_per_hour=7.2)


@given(size=SIZES)
def test_a_run_like_one_that_was_seen_takes_as_long(size: RunSize) -> None:
    assert scaled_seconds(size, seen(size)) == pytest.approx(
        {"teacher": 130, "outputs": 35, "students": max(120, 20 * len(size.student_depths)),
         "candidates": 200, "rest": 90}
    )  # fmt: skip


def test_twice_the_rows_by_hand() -> None:
    """A start of 30 s and 100 s of rows; two starts of 20 s and 80 s over three layers; 8 s a candidate and
    12 s for its rows."""
    size = SIZE.model_copy(
        update={"teacher_rows": 6000.0, "student_depths": (1, 2, 3), "candidates": 20, "judged_rows": 4000.0}
    )

    assert scaled_seconds(size, seen()) == pytest.approx(
        {"teacher": 230, "outputs": 35, "students": 60 + 160, "candidates": 20 * (8 + 24), "rest": 90}
    )


def test_shorter_rows_by_hand() -> None:
    """At batch 80 a step's own work is that of 10 tokens a row: a row of 20 costs half of one of 50."""
    told = {"batch_size": 80}
    long = SIZE.model_copy(update=told | {"row_tokens": 50.0})
    short = SIZE.model_copy(update=told | {"row_tokens": 20.0})

    assert scaled_seconds(short, seen(long)) == pytest.approx(
        {"teacher": 30 + 50, "outputs": 17.5, "students": 40 + 40, "candidates": 200, "rest": 90}
    )
    # A record of before lengths were kept is as good as it was.
    assert scaled_seconds(short, seen()) == pytest.approx(seen().seconds)


def test_dollars_and_ranges_by_hand() -> None:
    found = predict(SIZE, seen())

    assert (found.basis, found.runs) == ("earlier runs", 1)
    assert found.total_s.value == pytest.approx(575)
    assert (found.total_s.low, found.total_s.high) == pytest.approx((575 * 0.75, 575 * 1.25))
    assert found.training_usd.value == pytest.approx((130 + 35) * 2 * 0.001)
    assert found.search_usd.value == pytest.approx((120 + 200) * 2 * 0.001)
    assert found.node_usd.value == pytest.approx(575 * 7.2 / 3600)


def test_runs_that_agree_narrow_the_range_and_errors_widen_it() -> None:
    def share(*runs: SeenRun) -> float:
        total = predict(SIZE, *runs).total_s
        return float(total.high / total.value - 1)

    assert share(seen(), seen(), seen()) == pytest.approx(0.15)
    assert share(seen(), seen(estimated_s=575 / 1.2)) == pytest.approx(2 * 0.2)
    slow = {stage: 2 * spent for stage, spent in seen().seconds.items()}
    assert share(seen(), seen(seconds=slow, start_s=60.0, student_start_s=40.0)) > 0.5


def test_timed_steps_say_so_and_are_wide() -> None:
    found = predict(SIZE, seen(timed=True))

    assert (found.basis, found.runs) == ("timed steps", 0)
    assert {stage: span.value for stage, span in found.seconds.items()} == pytest.approx(seen().seconds)
    assert found.total_s.high == pytest.approx(1.5 * found.total_s.value)


@given(size=SIZES, more=st.floats(1, 100))
def test_more_work_never_takes_less(size: RunSize, more: float) -> None:
    for field in ("teacher_rows", "output_rows", "student_rows", "judged_rows"):
        larger = size.model_copy(update={field: getattr(size, field) * more})
        assert predict(larger, seen()).total_s.value >= predict(size, seen()).total_s.value * (1 - 1e-12)


@given(size=SIZES)
def test_stages_add_up_and_lie_in_their_ranges(size: RunSize) -> None:
    found = predict(size, seen(), seen())

    assert tuple(found.seconds) == STAGES
    assert sum(span.value for span in found.seconds.values()) == pytest.approx(found.total_s.value)
    for span in (
        *found.seconds.values(),
        found.total_s,
        found.training_usd,
        found.search_usd,
        found.node_usd,
    ):
        assert 0 <= span.low <= span.value <= span.high


def test_nothing_seen_is_refused() -> None:
    with pytest.raises(EquipoiseError, match="a run or a few steps"):
        predict(SIZE)
