"""What the log of a job tells of a run's steps."""

from __future__ import annotations

import pytest

from equipoise.observability.progress import Step
from equipoise.pipeline.display import Lines
from equipoise.pipeline.watching import PlainPace


def test_a_step_is_told_when_it_is_new_and_after_a_while() -> None:
    pace = PlainPace()
    assert not pace.is_due(Step())
    assert pace.is_due(Step("distilling", 1, 10))
    assert not pace.is_due(Step("distilling", 2, 10))
    assert pace.is_due(Step("exporting", 0, 1))


def test_a_jobs_lines_hold_figures_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.stage(2, 6, "teacher")
    figures = {"loss": 0.25, "rows_per_s": 123.456}
    lines.show(Step("fine-tuning", done=25, total=100, figures=figures, started_s=1.0))
    headline, step = capsys.readouterr().out.splitlines()
    assert headline == "2/6 teacher"
    for part in ("2/6 teacher", "fine-tuning", "25/100", "loss 0.25", "rows per s 123.5", "left"):
        assert part in step
