from __future__ import annotations

import sys
from types import ModuleType

import pytest

from equipoise import hardware
from equipoise.pipeline.metered_node import _machines


def test_a_ray_that_is_only_half_imported_is_no_cluster_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a job RAY_ADDRESS is set from the start, and the clock may tick while the pipeline imports Ray."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    assert _machines() == {"": float(len(hardware.usable_cores()))}
