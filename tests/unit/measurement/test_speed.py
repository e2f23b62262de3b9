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


def measured(predictor: Predictor, batch_size: int = 16) -> Speed:
    return measure_speed(
        predictor, TEXTS, requests=40, batches=5, batch_size=batch_size, resamples=100, seed=1
    )


def test_the_figures_are_sane_and_in_order(predictor: Predictor) -> None:
    speed = measured(predictor)
    assert 0 < speed.latency_p50_ms.value <= speed.latency_p99_ms.value < 1000
    for figure in (speed.latency_p50_ms, speed.latency_p99_ms, speed.throughput_rps):
        assert 0 < figure.low <= figure.value <= figure.high
    assert speed.latency_p50_ms.n == speed.latency_p99_ms.n == 40
    assert (speed.throughput_rps.n, speed.batch_size, speed.threads) == (5, 16, 1)
    # A batch shares what each request pays by itself.
    assert speed.throughput_rps.value > 1000 / speed.latency_p50_ms.value


class Slow:
    """A real engine made slower by a known time."""

    def __init__(self, predictor: Predictor, seconds: float) -> None:
        self.engine, self.seconds = predictor.engine, seconds

    def run(self, inputs: Arrays) -> Arrays:
        time.sleep(self.seconds)
        return self.engine.run(inputs)


def test_a_known_delay_shows_in_each_figure(predictor: Predictor) -> None:
    speed = measured(Predictor(predictor.task, Slow(predictor, 0.02)), batch_size=10)
    assert speed.latency_p50_ms.low > 20
    assert speed.throughput_rps.high < 10 / 0.02


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
