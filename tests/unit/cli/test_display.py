from __future__ import annotations

import io

import pytest
from rich.console import Console

from equipoise.cli.display import TerminalDisplay, open_display
from equipoise.observability.progress import Step


@pytest.fixture
def shown() -> tuple[TerminalDisplay, io.StringIO]:
    """A display on something that is no terminal, as in a pipe or a log."""
    output = io.StringIO()
    return TerminalDisplay(Console(file=output, width=60), live=None), output


def test_stages_and_notes_are_plain_lines(shown: tuple[TerminalDisplay, io.StringIO]) -> None:
    display, output = shown
    display.stage(2, 6, "teacher")
    display.note("[acc] and a note that is a good deal longer than the sixty columns there are")
    lines = output.getvalue().splitlines()
    assert lines[0].startswith("2/6 teacher")
    assert lines[1] == "  [acc] and a note that is a good deal longer than the sixty columns there are"


def test_a_step_is_one_line_with_its_figures_and_the_time_left(
    shown: tuple[TerminalDisplay, io.StringIO],
) -> None:
    display, output = shown
    display.stage(3, 6, "search")
    display.show(Step("distilling", done=25, total=100, figures={"rows_per_s": 123.456}, started_s=1.0))
    line = output.getvalue().splitlines()[-1]
    for part in ("3/6 search", "distilling", "25/100", "rows per s 123.5", "left"):
        assert part in line


def test_the_same_step_is_not_printed_again_and_again(shown: tuple[TerminalDisplay, io.StringIO]) -> None:
    display, output = shown
    for done in range(50):
        display.show(Step("distilling", done=done, total=100))
    assert output.getvalue().count("distilling") == 1
    display.show(Step("exporting", done=0, total=1))
    assert output.getvalue().count("exporting") == 1


def test_with_json_the_display_leaves_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display(quiet=True) as display:
        display.stage(1, 6, "data")
        display.note("a note")
    found = capsys.readouterr()
    assert found.out == ""
    assert "a note" in found.err
