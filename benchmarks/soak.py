"""What an endpoint stands: replicas that are killed, a new bundle under load, and twice what it can do.

Two replicas of a finished run's bundle, as `equipoise serve` starts them, and a client that sends at a rate
whatever comes back. A replica is killed (SIGKILL) each minute, by turns; then the bundle is replaced; then
twice the rate that the endpoint reached comes in.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
from benchmarks.http_load import Load, ask_at, ask_each, ask_for, make_requests
from benchmarks.record import Measured, measured_here_and_now, write_result
from benchmarks.serving import sample_rows
from benchmarks.serving_load import CONNECTIONS

from equipoise.bundle import locate_bundle, open_bundle
from equipoise.config.serving import ServingConfig
from equipoise.errors import EquipoiseError
from equipoise.ray_runtime import free_port, start_ray, stop_ray
from equipoise.runs import RunFolder

REPLICAS, SHARE = 2, 0.8
_SAMPLE_S = 10.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all of it, and write `results/soak.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--run", default="runs/demo", help="finished run of a text classifier")
    parser.add_argument("--minutes", type=float, default=10, help="a replica is killed in each (default: 10)")
    given = parser.parse_args(arguments)
    run = Path(given.run).absolute()
    try:
        soak = Soak(run)
        start_ray()
        try:
            figures = soak.measure(given.minutes)
        finally:
            stop_ray()
    except EquipoiseError as error:
        sys.exit(f"benchmarks.soak: {error}")
    command = f"python -m benchmarks.soak --run {given.run} --minutes {given.minutes:g}"
    print(write_result("soak", command, figures, measured_here_and_now()))


class Soak:
    """One endpoint, from its start to its overload."""

    def __init__(self, run: Path) -> None:
        self.bundle = open_bundle(locate_bundle(run)).folder
        self.objective_ms = float(RunFolder(str(run)).read("config.json")["constraints"]["p99_ms"] or 100)
        self.serving = ServingConfig(port=free_port(), replicas=REPLICAS)
        texts = sample_rows(run, 600).texts
        bodies = [json.dumps({"text": text}).encode() for text in texts]
        self.requests = make_requests(self.serving.port, "/v1/predict", bodies)

    def measure(self, minutes: float) -> list[Measured]:
        """The figures beside their goals; prints each part's."""
        self.deploy("first", self.serving)
        port = self.serving.port
        ask_each(port, self.requests, CONNECTIONS)
        capacity = ask_for(port, self.requests, CONNECTIONS, 8).rps
        rate = SHARE * capacity * (REPLICAS - 1) / REPLICAS
        print(f"capacity {capacity:.0f} requests/s; {rate:.0f} are sent", flush=True)
        with sampled_memory() as sizes, killing(60.0) as killed:
            soaked = ask_at(port, self.requests, rate, 60 * minutes)
        self.tell(f"{minutes:g} minutes, {len(killed)} replicas killed", soaked)
        with ThreadPoolExecutor(1) as thread:
            updating = thread.submit(self.deploy, "second", self.serving)
            updated = ask_at(port, self.requests, rate, 30)
            updating.result()
        self.tell("a new bundle", updated)
        # What would wait longer than the objective allows is refused.
        self.deploy("third", self.serving.model_copy(update={"max_wait_ms": self.objective_ms}))
        ask_each(port, self.requests, 8)
        flooded = ask_at(port, self.requests, 2 * capacity, 10)
        self.tell("twice the capacity", flooded)
        refused = len(flooded.refused_ms)
        return [
            Measured("replicas killed", len(killed), int(minutes), "higher"),
            Measured("failed requests while replicas were killed", soaked.failures, 0, "lower"),
            Measured("memory growth meanwhile", growth(sizes), 0.05, "lower"),
            Measured("failed requests while the bundle was replaced", updated.failures, 0, "lower"),
            Measured(
                "at twice the capacity: p99 of the accepted over the objective",
                flooded.percentile(99) / self.objective_ms,
                2,
                "lower",
            ),
            Measured(
                "at twice the capacity: p99 until a refusal, ms",
                float(np.percentile(flooded.refused_ms, 99)) if refused else 0.0,
                50,
                "lower",
            ),
            Measured(
                "at twice the capacity: neither answered nor refused", flooded.failures - refused, 0, "lower"
            ),
        ]

    def deploy(self, name: str, serving: ServingConfig) -> None:
        """Serve the bundle under a name; in place of what was served before."""
        from equipoise_serving.endpoint import deploy

        # Less than half a core each, so that an update finds room beside what it replaces.
        deploy(self.bundle, serving, model_name=name, num_cpus=0.4)

    def tell(self, part: str, load: Load) -> None:
        """One line."""
        print(
            f"{part}: {len(load.latencies_ms)} answered, {len(load.refused_ms)} refused, "
            f"{load.failures - len(load.refused_ms)} failed, p50 {load.percentile(50):.1f} ms, "
            f"p99 {load.percentile(99):.1f} ms",
            flush=True,
        )


@contextmanager
def repeated(every_s: float, first_s: float, act: Callable[[], None]) -> Iterator[None]:
    """Do it every so often, in a thread, the first time after `first_s`."""
    done = threading.Event()

    def go() -> None:
        wait_s = first_s
        while not done.wait(wait_s):
            act()
            wait_s = every_s

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def killing(every_s: float) -> Iterator[list[int]]:
    """Process numbers of the replicas that were killed, the oldest each time."""
    killed: list[int] = []

    def kill() -> None:
        found = sorted(replicas(), key=lambda process: process.create_time())
        if found:
            killed.append(found[0].pid)
            os.kill(found[0].pid, signal.SIGKILL)

    # The first at half time, so that the last one's successor is seen to serve.
    with repeated(every_s, every_s / 2, kill):
        yield killed


@contextmanager
def sampled_memory() -> Iterator[list[float]]:
    """MiB of everything that this process started: replicas, proxy, Ray."""
    sizes: list[float] = []

    def sample() -> None:
        total = 0
        for process in psutil.Process().children(recursive=True):
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
        sizes.append(total / 2**20)

    with repeated(_SAMPLE_S, _SAMPLE_S, sample):
        yield sizes


def replicas() -> list[psutil.Process]:
    """Processes of the replicas that are there."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ServeReplica" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def growth(sizes: list[float], minute: int = int(60 / _SAMPLE_S)) -> float:
    """Median of the last minute over that of the second, less 1; 0 where it took less than three."""
    if len(sizes) < 3 * minute:
        return 0.0
    return float(np.median(sizes[-minute:]) / np.median(sizes[minute : 2 * minute])) - 1


if __name__ == "__main__":
    main()
