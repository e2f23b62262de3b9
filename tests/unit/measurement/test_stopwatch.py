from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from equipoise import hardware
from equipoise.measurement.speed import pinned_to_one_core
from equipoise.measurement.stopwatch import opened_stopwatch

BUSY = "print(flush=True)\nwhile True: pass"


def work() -> None:
    sum(number * number for number in range(2_000_000))


def test_what_another_process_takes_of_the_core_is_not_the_calls_own() -> None:
    if not Path("/proc/thread-self/schedstat").is_file():
        pytest.skip("this kernel does not count how long a thread waits for a core")
    core = hardware.usable_cores()[-1]
    rival_code = f"import os; os.sched_setaffinity(0, [{core}])\n{BUSY}"
    rivals = [subprocess.Popen([sys.executable, "-c", rival_code], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for rival in rivals:
            assert rival.stdout is not None
            rival.stdout.readline()
        with pinned_to_one_core(), opened_stopwatch() as stopwatch:
            spent = time.process_time()
            laps = [stopwatch.time(work) for _ in range(5)]
            spent = time.process_time() - spent
    finally:
        for rival in rivals:
            rival.kill()
            rival.communicate()
    own_s, wall_s = sum(lap.own_s for lap in laps), sum(lap.wall_s for lap in laps)
    # Three rivals leave a quarter of the core.
    assert own_s < 0.6 * wall_s
    assert own_s == pytest.approx(spent, rel=0.25)


def test_sleeping_is_the_calls_own_time() -> None:
    with opened_stopwatch() as stopwatch:
        lap = stopwatch.time(lambda: time.sleep(0.2))
    # Waking up may take a turn in line; the sleep itself is no waiting for a core.
    assert 0.15 < lap.own_s <= lap.wall_s


def test_no_files_are_left_open() -> None:
    opened = Path("/proc/self/fd")
    if not opened.is_dir():
        pytest.skip("this system does not list a process's open files")
    before = len(list(opened.iterdir()))
    with opened_stopwatch() as stopwatch:
        stopwatch.time(work)
    assert len(list(opened.iterdir())) == before
