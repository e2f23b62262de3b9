from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equipoise.engines import Predictor, open_engine
from equipoise.measurement.speed import measure_speed
from equipoise.runs import Speed
from equipoise.tasks import Arrays
from equipoise.tasks.text_classification import TextClassification

TEXTS = ["where is my parcel", "refund", "the flight to oslo and the hotel near the airport were late"]


@pytest.fixture
def predictor(tiny_classifier: Path, tiny_task: TextClassification) -> Predictor:
    return Predictor(tiny_task, open_engine("torch", tiny_classifier, "fp32"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def measured(
    predictor: Predictor, max_batch_size: int = 16, max_batch_tokens: int = 1024, p99_ms: float | None = None
) -> Speed:
    return measure_speed(
        predictor,
        TEXTS,
        requests=40,
        batches=5,
        max_batch_size=max_batch_size,
        max_batch_tokens=max_batch_tokens,
        p99_ms=p99_ms,
        model_bytes=1_000_000,
        resamples=100,
        seed=1,
    )


def test_the_figures_are_sane_and_in_order(predictor: Predictor) -> None:
    speed = measured(predictor)
    assert 0 < speed.latency_p50_ms.value <= speed.latency_p99_ms.value < 1000
    for figure in (speed.latency_p50_ms, speed.latency_p99_ms, speed.throughput_rps):
        assert 0 < figure.low <= figure.value <= figure.high
    assert speed.latency_p50_ms.n == speed.latency_p99_ms.n == 40
    assert (speed.throughput_rps.n, speed.threads) == (5, 1)
    assert 1 < speed.batch_size <= 16
    assert speed.slowdown >= 1
    assert 0 <= speed.waited_share < 1
    assert speed.wall_p50_ms is not None
    assert speed.wall_p50_ms >= speed.latency_p50_ms.value
    # A batch shares what each request pays by itself.
    assert speed.throughput_rps.value > 1000 / speed.latency_p50_ms.value


class Slow:
    """A real engine made slower by a known time a call and a row."""

    def __init__(self, predictor: Predictor, seconds: float, row_s: float = 0.0) -> None:
        self.engine, self.seconds, self.row_s = predictor.engine, seconds, row_s

    def run(self, inputs: Arrays) -> Arrays:
        rows, longest = inputs["input_ids"].shape
        self.largest = max(getattr(self, "largest", 0), rows * longest)
        time.sleep(self.seconds + self.row_s * rows)
        return self.engine.run(inputs)


def test_a_known_delay_shows_in_each_figure(predictor: Predictor) -> None:
    speed = measured(Predictor(predictor.task, Slow(predictor, 0.02)), max_batch_size=10)
    assert speed.wall_p50_ms is not None
    assert speed.wall_p50_ms > 20
    assert speed.latency_p50_ms.value > 20 / 1.5
    # A correction divides by 1.5 at most.
    assert speed.throughput_rps.value < 1.5 * 10 / 0.02


def test_a_delay_that_a_batch_shares_makes_the_largest_batch_the_best(predictor: Predictor) -> None:
    assert measured(Predictor(predictor.task, Slow(predictor, 0.03)), max_batch_size=8).batch_size >= 6


def test_a_batch_that_takes_longer_than_the_objective_is_out(predictor: Predictor) -> None:
    slow = Slow(predictor, 0.0, row_s=0.03)
    # Eight rows take 240 ms and four 120; two take 60.
    assert measured(Predictor(predictor.task, slow), max_batch_size=8, p99_ms=110).batch_size <= 2


def test_padded_tokens_stay_within_the_budget_of_serving(predictor: Predictor) -> None:
    slow = Slow(predictor, 0.0)
    measured(Predictor(predictor.task, slow), max_batch_tokens=40)
    assert slow.largest <= 40


def test_pinning_takes_the_last_core_for_every_thread_and_gives_all_back() -> None:
    check = (
        "import os, threading; from equipoise.measurement.speed import pinned_to_one_core; "
        "held = lambda: {tuple(os.sched_getaffinity(int(t))) for t in os.listdir('/proc/self/task')}; "
        "before = held(); cores = sorted(os.sched_getaffinity(0)); release = threading.Event(); "
        "thread = threading.Thread(target=release.wait); thread.start(); pin = pinned_to_one_core(); "
        "pin.__enter__(); during = held(); pin.__exit__(None, None, None); after = held(); "
        "release.set(); print(during == {(cores[-1],)}, before == after)"
    )
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot pin a process to a core")
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]
