from __future__ import annotations

import subprocess
import sys
import time

from equipoise.observability.progress import Board, Step


def test_time_left_is_at_the_pace_so_far() -> None:
    assert Step("x", done=25, total=100, started_s=100.0).left_s(110.0) == 30.0
    assert Step("x", done=100, total=100, started_s=100.0).left_s(110.0) == 0.0


def test_what_an_earlier_try_did_is_no_pace() -> None:
    step = Step("x", done=900, total=1000, started_s=100.0, before=800)
    assert step.left_s(110.0) == 10.0
    assert Step("x", done=800, total=1000, started_s=100.0, before=800).left_s(110.0) is None


def test_no_pace_no_time_left() -> None:
    for step in (
        Step("x"),
        Step("x", done=0, total=9),
        Step("x", done=3, total=0),
        Step("x", done=9, total=3),
    ):
        assert step.left_s(10.0) is None


def test_the_board_holds_the_newest_step_and_its_start() -> None:
    board = Board()
    assert board.read() == Step()
    board.tell("training", 1, 10, {"loss": 0.5})
    first = board.read()
    assert (first.text, first.done, first.total, first.figures) == ("training", 1, 10, {"loss": 0.5})
    assert abs(time.time() - first.started_s) < 5
    board.tell("training", 2, 10, {})
    assert board.read().started_s == first.started_s
    assert (board.read().done, board.read().before) == (2, 1)
    board.tell("training", 1, 10, {})
    assert (board.read().done, board.read().before) == (1, 1)
    time.sleep(0.01)
    board.tell("timing", 0, 1, {})
    assert board.read().started_s > first.started_s


def test_telling_without_ray_is_silent() -> None:
    check = "from equipoise.observability import progress; progress.tell('x', 1, 1, force=True)"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", check], capture_output=True, text=True, check=True
    )
    assert found.stdout == found.stderr == ""
