from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time

import pytest

from equipoise.cli import progress_bar
from equipoise.cli.progress_bar import open_progress


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line at each call, and not every quarter of a minute."""
    monkeypatch.setattr(progress_bar, "_PLAIN_EVERY_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_time_left_is_at_the_pace_of_this_try(capsys: pytest.CaptureFixture[str]) -> None:
    with open_progress() as tell:
        tell("rows", 9_000, 10_000)
        time.sleep(0.5)
        tell("rows", 9_100, 10_000)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "rows 9,000/10,000"
    told = re.fullmatch(r"rows 9,100/10,000 · (\d+) s left", second)
    # 100 rows in half a second, 900 to go: by all rows that were ever done it would be none.
    assert told is not None
    assert int(told[1]) >= 4


@pytest.mark.usefixtures("at_once")
def test_of_an_unknown_total_no_time_left_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with open_progress() as tell:
        tell("rows", 0, 0)
        tell("rows", 1_024, 0)
        tell("rows", 2_048, 0)
    assert capsys.readouterr().err.splitlines() == ["rows 1,024", "rows 2,048"]


@pytest.mark.parametrize(("total", "shown"), [(3, "2/3"), (0, "2/?")])
def test_the_live_bar_shows_a_total_where_there_is_one(total: int, shown: str) -> None:
    script = (
        "import time\n"
        "from equipoise.cli.progress_bar import open_progress\n"
        "with open_progress() as tell:\n"
        f"    tell('rows', 1, {total}); tell('rows', 2, {total}); time.sleep(0.5)\n"
    )
    terminal, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", script], stderr=other, env=environment)
    os.close(other)
    told = b""
    while True:
        try:
            read = os.read(terminal, 65_536)
        except OSError:  # Linux says so where the other end is closed.
            break
        told += read
    os.close(terminal)
    assert process.wait(60) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told.decode())
    assert shown in plain
    if not total:
        assert "0:00:00" not in plain
