from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from equipoise.costs import ledger_clock


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ledger_clock.VARIABLE, raising=False)


def test_it_tells_the_time() -> None:
    assert ledger_clock.now() == pytest.approx(time.time(), abs=1)


def test_a_wall_clock_that_is_set_back_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ledger_clock.now()
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() - 3600)

    assert before <= ledger_clock.now() < before + 10


def test_a_child_process_goes_by_the_same_note() -> None:
    ours = ledger_clock.now()
    # The child's wall clock is an hour off; only the note it inherits can tell it the parent's time.
    program = (
        "import time; true = time.time; time.time = lambda: true() - 3600\n"
        "from equipoise.costs import ledger_clock; print(ledger_clock.now())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )

    assert ours <= float(found.stdout) < ours + 60


@pytest.mark.parametrize("note", ["", "nonsense", "another-boot 5.0", "x y z"])
def test_a_note_of_another_machine_does_not_count(monkeypatch: pytest.MonkeyPatch, note: str) -> None:
    monkeypatch.setenv(ledger_clock.VARIABLE, note)

    assert ledger_clock.now() == pytest.approx(time.time(), abs=1)
