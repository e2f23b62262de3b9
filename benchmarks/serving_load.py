"""One leg of the serving benchmark: started, asked for every row, loaded, and ended within five minutes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from benchmarks.http_load import ask_at, ask_each, ask_for, label_of, make_requests
from benchmarks.serving_rows import BenchmarkRows, named

from equipoise import hardware
from equipoise.bundle import Bundle
from equipoise.errors import ServiceError
from equipoise.exporter.client import read_metric

CONNECTIONS = 64
"""Of the client, in every leg: enough that the batches of two replicas, of 32 rows each, can be full."""
LEG_S = 290
"""A leg that takes longer is ended."""
_FLUSH_S = 2.5
"""Until counters have reached Ray's metrics page."""


def measure_leg(
    name: str,
    bundle: Bundle,
    teacher: Path,
    rows: BenchmarkRows,
    seconds: float,
    engine: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Accuracy over all rows first, which warms it up; then a full load, and one of a fifth of that.

    Args:
        engine: the bare engine's leg, for the leg that is held against it; None leaves the light load out.

    Raises:
        ServiceError: the leg does not start, or takes more than LEG_S.
    """
    replicas = 1 if name == "tutorial" else len(hardware.usable_cores())
    with running(name, bundle.folder, teacher, replicas) as leg:
        port, pid = leg["port"], leg["pid"]
        requests = make_requests(port, "/v1/predict", [json.dumps({"text": t}).encode() for t in rows.texts])
        answered = ask_each(port, requests, CONNECTIONS)
        labels = list(bundle.manifest.task["labels"])
        predicted = [named(label_of(answer), labels) for answer in answered.answers]
        # What the first rows took is not to be counted in what the load takes.
        time.sleep(_FLUSH_S)
        before, busy_before = cpu_seconds(pid), busy_seconds(leg)
        load = ask_for(port, requests, CONNECTIONS, seconds)
        after = cpu_seconds(pid)
        time.sleep(_FLUSH_S)
        count = max(1, len(load.latencies_ms))
        busy_ms = (busy_seconds(leg) - busy_before) * 1000 / count
        cpu_ms = {part: (after[part] - before[part]) * 1000 / count for part in after}
        found: dict[str, Any] = {
            "rps": load.rps,
            "p50_ms": load.percentile(50),
            "p99_ms": load.percentile(99),
            "failures": load.failures + answered.failures,
            "accuracy": rows.accuracy(predicted),
            "replica_mib": replica_mib(pid),
            "cpu_ms": cpu_ms,
        }
        if engine is not None:
            light = ask_at(port, requests, load.rps / 5, seconds)
            found["failures"] += light.failures
            found["added_p50_ms"] = light.percentile(50) - engine["p50_ms"]
            found["cpu_ms"] = split_replica(cpu_ms, busy_ms, engine["shares"])
        return found


def split_replica(cpu_ms: dict[str, float], busy_ms: float, shares: dict[str, float]) -> dict[str, float]:
    """The replica's CPU milliseconds as its own, the tokenizer's, the engine's and the decoder's.

    Busy seconds are metered for the three together, as wall time in a thread of its own; how they share them
    was timed in the bare engine. On a busy machine wall time is more than CPU time, and no more is given out
    than there is.
    """
    busy_ms = min(busy_ms, cpu_ms["replica"])
    parts = {name: busy_ms * share for name, share in shares.items()}
    return cpu_ms | {"replica": cpu_ms["replica"] - busy_ms} | parts


@contextmanager
def running(name: str, bundle: Path, teacher: Path, replicas: int) -> Iterator[dict[str, Any]]:
    """A leg in a process of its own: its port, its metrics page, its process.

    Raises:
        ServiceError: it does not answer, or is not done within LEG_S.
    """
    command = [sys.executable, "-m", "benchmarks.serving_legs", name, str(bundle), str(teacher)]
    process = subprocess.Popen(
        [*command, str(replicas)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        process.kill()

    timer = threading.Timer(LEG_S, end)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line) | {"pid": process.pid}
                break
        else:
            raise ServiceError("the leg did not start", where=name, remedy="see what it printed above")
    except (OSError, psutil.Error) as error:
        if overdue.is_set():
            raise ServiceError(f"the leg was not done in {LEG_S} s", where=name) from error
        raise ServiceError(f"the leg went away: {error}", where=name) from error
    finally:
        timer.cancel()
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """Let it end Ray in order, as it does when its standard input ends."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    for each in below:
        # What Ray left behind would take from the next leg's cores.
        if each.is_running():
            each.kill()


def busy_seconds(leg: dict[str, Any]) -> float:
    """Seconds that the leg's engines worked, where it meters them."""
    return read_metric(leg["metrics_url"], "ray_equipoise_busy_seconds_total") or 0.0


def cpu_seconds(pid: int) -> dict[str, float]:
    """CPU seconds so far, by what spent them."""
    found = {"client": sum(psutil.Process().cpu_times()[:2]), "proxy": 0.0, "replica": 0.0, "ray": 0.0}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            command, spent = " ".join(process.cmdline()), sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
        part = "replica" if "ServeReplica" in command else "ray"
        found["proxy" if "haproxy" in command.lower() or "ProxyActor" in command else part] += spent
    return found


def replica_mib(pid: int) -> float:
    """Resident memory of the largest replica, in MiB."""
    sizes = [0.0]
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if "ServeReplica" in " ".join(process.cmdline()):
                sizes.append(process.memory_info().rss / 2**20)
        except psutil.Error:
            continue
    return max(sizes)
