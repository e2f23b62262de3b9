from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.measurement.reference import Reference
from equipoise.measurement.stopwatch import opened_stopwatch


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("model_bytes", "size"),
    [(0, 2**17), (2**19 - 1, 2**17), (2**19, 2**19), (22_000_000, 2**23), (10**12, 2**25)],
)
def test_the_buffer_is_as_large_as_the_model_within_bounds(model_bytes: int, size: int) -> None:
    assert Reference(model_bytes).size_bytes == size


def test_a_take_reads_its_bytes_at_a_speed_that_memory_can_have() -> None:
    reference = Reference(2**23)
    with opened_stopwatch() as stopwatch:
        taken = min(reference.take(stopwatch) for _ in range(5))
    assert 1e9 < reference.size_bytes / taken < 1e12


def test_calm_is_the_fastest_ever_seen_and_outlives_the_process() -> None:
    assert Reference(2**23).calm_s([4.0] * 10) == 4.0
    assert Reference(2**23).calm_s([3.0] * 10) == 3.0
    assert Reference(2**23).calm_s([5.0] * 10) == 3.0
    assert Reference(2**25).calm_s([5.0] * 10) == 5.0


def test_a_single_fast_take_is_not_calm() -> None:
    assert Reference(0).calm_s([1.0] + [2.0] * 99) == 2.0


def test_a_cache_that_cannot_be_written_ends_no_measurement(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert Reference(0).calm_s([2.0] * 10) == 2.0


def test_a_broken_cache_ends_no_measurement(cache: Path) -> None:
    assert Reference(0).calm_s([1.0] * 10) == 1.0
    (file,) = cache.rglob("*.json")
    file.write_text("{")
    assert Reference(0).calm_s([2.0] * 10) == 2.0
