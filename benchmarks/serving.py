"""Requests a second over HTTP, side by side in one run: what a bundle gains, and what the way to it costs.

Served in turn, on the same cores, with the same client and the same rows: the usual tutorial (a
transformers pipeline of the fp32 teacher on a default Ray Serve), the same with a replica a core, the
bundle behind Serve's own batching and proxy, a trivial echo behind Equipoise's front, and the bundle as
`equipoise serve` serves it. The bare engine is the bundle's `Predictor` in one process a core, at its
best batch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from benchmarks.http_load import Load, ask_at, ask_each, ask_for, label_of, make_requests
from benchmarks.record import Measured, measured_here_and_now, write_result

from equipoise import hardware
from equipoise.bundle import locate_bundle, open_bundle
from equipoise.data import load_rows
from equipoise.errors import EquipoiseError
from equipoise.exporter.client import read_metric
from equipoise.runs import RunFolder

CONNECTIONS = 32
START_S = 120
BATCHES = (1, 8, 16, 32)


@dataclass(frozen=True)
class Leg:
    """One way of serving, loaded."""

    load: Load
    accuracy: float
    cpu_ms: dict[str, float]
    """CPU milliseconds of a request in client, proxy, replicas and the rest of Ray."""
    busy_ms: float
    """Tokenizer and engine of a request; 0 where they are not metered."""
    replica_mib: float
    """Resident memory of the largest replica."""
    added_p50_ms: float = float("nan")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write `results/serving.json` and print its path."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument(
        "--run", default="runs/demo", help="finished run of a text classifier (default: %(default)s)"
    )
    parser.add_argument("--rows", type=int, default=600, help="test rows (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="length of each load (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        measure(Path(given.run).absolute(), given.rows, given.seconds)
    except EquipoiseError as error:
        sys.exit(f"benchmarks.serving: {error}")


def measure(run: Path, rows: int, seconds: float) -> None:
    """Every leg in turn."""
    config = RunFolder(str(run)).read("config.json")["data"]
    found = load_rows(config["test"], config["text_column"], config["label_column"], 1 << 20)
    texts, truth = list(found.inputs[:rows]), list(found.labels[:rows])
    bundle = open_bundle(locate_bundle(run))
    cores = len(hardware.usable_cores())
    engine_rps, engine_p50_ms = bare_engine(bundle.folder, texts, cores)
    print(
        f"bare engine: {engine_rps:.0f} rows/s on {cores} cores, {engine_p50_ms:.2f} ms for one", flush=True
    )

    def serve(name: str, replicas: int) -> Leg:
        requests = [json.dumps({"text": text}).encode() for text in texts]
        with running(name, bundle.folder, run / "teacher", replicas) as leg:
            labels = bundle.manifest.task["labels"] if name == "tutorial" else None
            result = load_leg(
                leg, requests, truth, labels, seconds, engine_p50_ms if name == "equipoise" else None
            )
        tell(f"{name} x{replicas}", result)
        return result

    tutorial, tuned = serve("tutorial", 1), serve("tutorial", cores)
    defaults, echo, own = serve("defaults", cores), serve("echo", cores), serve("equipoise", cores)
    print(f"added p50 at 20% load: {own.added_p50_ms:.2f} ms")
    bound = 1 / (1 / echo.load.rps + 1 / engine_rps)
    rps, lost = own.load.rps, 100 * (tutorial.accuracy - own.accuracy)
    figures = [
        Measured(
            "requests/s, over the tutorial deployment of the fp32 teacher",
            rps / tutorial.load.rps,
            100,
            "higher",
        ),
        Measured("requests/s, over that with a replica a core", rps / tuned.load.rps, 50, "higher"),
        Measured(
            "requests/s, over the same bundle behind Serve's defaults", rps / defaults.load.rps, 5, "higher"
        ),
        Measured("requests/s, share of 1/(1/echo + 1/engine)", rps / bound, 0.75, "higher"),
        Measured("accuracy below the tutorial's, points", lost, 1, "lower"),
        Measured("p50 at 20% load, ms over the engine's own", own.added_p50_ms, 2, "lower"),
        Measured("resident memory of a replica, MiB", own.replica_mib, 400, "lower"),
        Measured("failed requests", own.load.failures, 0, "lower"),
    ]
    command = f"python -m benchmarks.serving --run {run.name} --rows {rows} --seconds {seconds:g}"
    print(write_result("serving", command, figures, measured_here_and_now()))


def tell(name: str, leg: Leg) -> None:
    """One leg on two lines."""
    shares = ", ".join(f"{part} {spent:.2f}" for part, spent in leg.cpu_ms.items())
    print(
        f"{name}: {leg.load.rps:.0f} requests/s, p50 {leg.load.percentile(50):.1f} ms, "
        f"p99 {leg.load.percentile(99):.1f} ms, {leg.load.failures} failed, accuracy {leg.accuracy:.4f}, "
        f"{leg.replica_mib:.0f} MiB\n  CPU ms a request: {shares}; engine and tokenizer {leg.busy_ms:.2f}",
        flush=True,
    )


@contextmanager
def running(name: str, bundle: Path, teacher: Path, replicas: int) -> Iterator[dict[str, Any]]:
    """A leg in a process of its own: its port, its metrics page, its process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.serving_legs",
        name,
        str(bundle),
        str(teacher),
        str(replicas),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line) | {"pid": process.pid}
                return
        sys.exit(f"benchmarks.serving: {name} did not start")
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def load_leg(
    leg: dict[str, Any],
    bodies: list[bytes],
    truth: list[str],
    labels: list[str] | None,
    seconds: float,
    engine_p50_ms: float | None,
) -> Leg:
    """Accuracy over all rows first, which warms it up; then the load."""
    requests = make_requests(leg["port"], "/v1/predict", bodies)
    answered = ask_each(leg["port"], requests if labels is None else requests[: len(requests) // 3], 16)
    predicted = [label_of(answer) for answer in answered.answers]
    if labels is not None:
        predicted = [labels[int(label.removeprefix("LABEL_"))] for label in predicted]
    accuracy = sum(map(str.__eq__, predicted, truth)) / len(predicted)
    before, busy_before = cpu_seconds(leg["pid"]), busy_seconds(leg)
    load = ask_for(leg["port"], requests, CONNECTIONS, seconds)
    after = cpu_seconds(leg["pid"])
    answered_requests = max(1, len(load.latencies_ms))
    time.sleep(2.5)
    busy_ms = (busy_seconds(leg) - busy_before) * 1000 / answered_requests
    cpu_ms = {part: (after[part] - before[part]) * 1000 / answered_requests for part in after}
    added_ms = float("nan")
    if engine_p50_ms is not None:
        added_ms = ask_at(leg["port"], requests, load.rps / 5, seconds).percentile(50) - engine_p50_ms
    return Leg(load, accuracy, cpu_ms, busy_ms, replica_mib(leg["pid"]), added_ms)


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


def bare_engine(bundle: Path, texts: list[str], cores: int) -> tuple[float, float]:
    """Rows a second of one process a core at the best batch, and the p50 of one row, in milliseconds."""
    command = [sys.executable, "-m", "benchmarks.serving_engine", str(bundle)]
    content = json.dumps({"texts": texts, "batches": BATCHES})
    processes = [
        subprocess.Popen([*command, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for core in hardware.usable_cores()[:cores]
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(content)
        process.stdin.close()
    results = [json.loads(process.stdout.read()) for process in processes if process.stdout is not None]
    for process in processes:
        process.wait(60)
    total = {batch: sum(result["rps"][str(batch)] for result in results) for batch in BATCHES}
    return max(total.values()), sum(result["p50_ms"] for result in results) / len(results)


if __name__ == "__main__":
    main()
