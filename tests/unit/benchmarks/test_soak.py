from __future__ import annotations

import time
from pathlib import Path

import pytest
from benchmarks.soak import growth, main, repeated


def test_growth_is_the_last_minute_over_the_second() -> None:
    # The first minute's start-up does not count.
    sizes = [900.0] * 6 + [1000.0] * 6 + [2000.0] * 12 + [1100.0] * 6
    assert growth(sizes) == pytest.approx(0.1)
    assert growth(sizes[:17]) == 0


def test_an_act_is_repeated_until_the_end_and_not_after() -> None:
    acts: list[float] = []
    start = time.perf_counter()
    with repeated(0.2, 0.05, lambda: acts.append(time.perf_counter() - start)):
        time.sleep(0.5)
    count = len(acts)
    assert count >= 2
    assert acts[0] >= 0.05
    assert acts[1] - acts[0] >= 0.19
    time.sleep(0.3)
    assert len(acts) == count


def test_a_run_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^benchmarks\.soak: "):
        main(["--run", str(tmp_path / "none")])
