from __future__ import annotations

import sys
import time

import pytest
from benchmarks.startup import cpu_seconds, heavy_modules


def test_cpu_seconds_count_work_and_not_waiting() -> None:
    spin = "import time\nwhile time.process_time() < 0.4: pass"
    started = time.perf_counter()
    assert cpu_seconds([sys.executable, "-c", spin]) >= 0.4
    assert time.perf_counter() - started >= 0.4
    assert cpu_seconds([sys.executable, "-c", "import time; time.sleep(0.5)"]) < 0.4


def test_a_command_that_fails_is_not_a_measurement() -> None:
    with pytest.raises(SystemExit, match="ended with 3"):
        cpu_seconds([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_package_and_its_command_line_load_nothing_heavy() -> None:
    assert heavy_modules("equipoise") == []
    assert heavy_modules("equipoise.cli.main") == []


def test_a_heavy_module_is_seen() -> None:
    assert heavy_modules("onnxruntime") == ["onnxruntime"]
