from __future__ import annotations

import os
import subprocess
import sys

import pytest

from equipoise.measurement.footprint import measured_footprint

TOOK = """
import numpy as np
from equipoise.measurement.footprint import measured_footprint

before = np.ones(100 << 17)
del before
with measured_footprint() as footprint:
    kept = np.ones(20 << 17)
    passing = np.ones(60 << 17)
    del passing
print(footprint.peak_bytes / 2**20)
"""


def test_the_peak_counts_what_was_given_back_and_not_what_came_before() -> None:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not let a process start its memory's peak anew")
    found = subprocess.run([sys.executable, "-c", TOOK], capture_output=True, text=True, check=True)
    assert 78 < float(found.stdout) < 90


def test_an_empty_block_takes_next_to_nothing() -> None:
    with measured_footprint() as footprint:
        pass
    assert footprint.peak_bytes is None or footprint.peak_bytes < 2**22
