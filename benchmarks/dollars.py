"""What the dollars cost: a million lines reconciled, a thousand replicas scraped, steps and requests metered.

The ledgers are made for it, line by line as writers put them; whatever reads them is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from benchmarks.peak_memory import peak_mib
from benchmarks.record import Measured, measured_here_and_now, write_result

from equipoise.config import RunConfig, validate_config
from equipoise.costs.ledger_lines import node_line, usage_line
from equipoise.costs.ledger_settle import settle
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.exporter.client import read_samples
from equipoise.ray_runtime import free_port
from equipoise.runs import RunFolder

LINES = 1_000_000
REPLICAS = 1_000
BEAT_S = 20
BASE = time.time() // 3600 * 3600 - 8 * 3600
"""Long enough ago for everything to be past, and within the exporter's day."""
YOUNG_BEATS, OLD_BEATS, COUNTED_BEATS = 10, 110, 10
STEPS, ROUNDS = 30, 30


def main() -> None:
    """Measure, write `results/dollars.json` and print its path."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dollars", description=__doc__)
    parser.add_argument("--scratch", default=None, help="folder for the ledgers made for this (1 GB)")
    scratch = parser.parse_args().scratch
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        figures = [
            *reconcile_figures(Path(folder) / "million"),
            *exporter_figures(Path(folder) / "replicas"),
            training_figure(Path(folder) / "training"),
            request_figure(Path(folder) / "request"),
        ]
    print(write_result("dollars", "python -m benchmarks.dollars", figures, measured_here_and_now()))


def config() -> RunConfig:
    """The smallest run config."""
    values = {"name": "made", "data": {"train": "a.csv", "test": "b.csv"}, "model": {"teacher": "sample://x"}}
    return validate_config(RunConfig, values, where="benchmark")


# Reconcile


def reconcile_figures(folder: Path) -> list[Measured]:
    """Wall seconds and peak memory of `equipoise ledger reconcile` on a million lines."""
    run = RunFolder(folder)
    lines = write_million(run)
    command = [sys.executable, "-m", "equipoise.cli.main", "ledger", "reconcile", str(folder), "--json"]
    with (folder / "found.json").open("wb") as output:
        start = time.perf_counter()
        process = psutil.Popen(command, stdout=output)
        peak, spent_s = 0.0, 0.0
        while process.poll() is None:
            # The kernel's own peak since the process began; its parent's would be in what wait4 tells.
            peak, spent_s = max(peak, peak_mib(process.pid)), max(spent_s, cpu_of(process))
            time.sleep(0.01)
        seconds = time.perf_counter() - start
    found = json.loads((folder / "found.json").read_text())
    if process.returncode or not found["reconciles"] or found["lines"] != lines:
        sys.exit(f"benchmarks.dollars: {lines} lines do not reconcile: {found['faults'][:3]}")
    return [
        Measured("ledger lines reconciled", found["lines"], LINES, "higher"),
        Measured("seconds to reconcile them", seconds, 10, "lower"),
        Measured("CPU seconds to reconcile them", spent_s, 10, "lower"),
        Measured("peak memory to reconcile them, MiB", peak, 500, "lower"),
    ]


def cpu_of(process: Any) -> float:
    """CPU seconds of a process so far; 0 where it has just ended."""
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.Error:
        return 0.0


def write_million(run: RunFolder) -> int:
    """A thousand replicas on 520 nodes for 1,000 beats; how many lines that is."""
    beats = LINES // REPLICAS
    with LedgerWriter(run, config(), "node") as node:
        for beat in range(beats + 1):
            start = BASE + beat * BEAT_S
            node.add(
                node_line(
                    run_id=node.run_id,
                    component="serving",
                    node=node.node,
                    book=node.book,
                    start=start,
                    stop=start + BEAT_S,
                    count=520,
                    resource_id=node.name,
                )
            )
    for number in range(REPLICAS):
        writer = LedgerWriter(run, config(), f"replica-{number}")
        # Each started at a moment of its own.
        put_beats(run, writer, writer.name, range(beats), phase_us=number * 19_997)
    with LedgerWriter(run, config(), "settle") as closing:
        settle(run, closing, ended=[node.name])
    return sum(text.count(b"\n") for text in contents(run))


def contents(run: RunFolder) -> Iterator[bytes]:
    """Bytes of every object of lines."""
    for file in Path(run.location, "ledger").glob("*/*.jsonl"):
        yield file.read_bytes()


def put_beats(
    run: RunFolder,
    writer: LedgerWriter,
    name: str,
    beats: range,
    *,
    phase_us: int = 0,
    apart: bool = False,
) -> None:
    """A replica's heartbeats, as its clock puts them; in one object, or each in its own."""
    template = usage_line(
        run_id=writer.run_id,
        component="serving",
        charge_class="workload",
        node=writer.node,
        book=writer.book,
        cores=1,
        start=BASE,
        stop=BASE + BEAT_S,
        used_core_seconds=7.5,
        detail="made",
        resource_type="replica",
        resource_id=name,
        requests=400,
    )
    text = template.model_copy(update={"writer": name, "number": 0}).model_dump_json()
    text = text.replace(template.period_start, "BEGIN").replace(template.period_end, "END")
    folder = Path(run.location, "ledger", name)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for beat in beats:
        line = text.replace("BEGIN", stamp(beat, phase_us)).replace("END", stamp(beat + 1, phase_us))
        lines.append(line.replace('"number":0', f'"number":{beat}') + "\n")
        if apart:
            (folder / f"{beat:06d}.jsonl").write_text(lines.pop())
    if lines:
        (folder / "000000.jsonl").write_text("".join(lines))


def stamp(beat: int, phase_us: int = 0) -> str:
    """A beat's time, as lines write it."""
    seconds, rest = divmod(phase_us, 1_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(BASE + beat * BEAT_S + seconds))
    return f"{text}.{rest:06d}+00:00"


# Exporter


def exporter_figures(folder: Path) -> list[Measured]:
    """CPU seconds and memory of the exporter, a scrape after each beat of a thousand replicas."""
    run = RunFolder(folder)
    run.put(config().model_dump(mode="json"), "config.json")
    writers = [LedgerWriter(run, config(), f"replica-{number}") for number in range(REPLICAS)]
    port = free_port()
    with ray_page() as page_url:
        command = [sys.executable, "-m", "equipoise.cli.main", "exporter", str(folder)]
        command += ["--port", str(port), "--ray-metrics-url", page_url]
        process = psutil.Popen(command)
        try:
            young, old, peak = scrape_beats(run, writers, process, f"http://127.0.0.1:{port}/metrics")
        finally:
            process.terminate()
            process.wait(timeout=20)
    return [
        Measured("CPU seconds of a scrape with 1,000 replicas", old, 1, "lower"),
        Measured("memory of the exporter with 1,000 replicas, MiB", peak / 2**20, 200, "lower"),
        Measured(
            "CPU of a scrape when the run is ten times as old, over when it was young",
            old / young,
            1.2,
            "lower",
        ),
    ]


def scrape_beats(
    run: RunFolder, writers: list[LedgerWriter], process: Any, url: str
) -> tuple[float, float, int]:
    """Median CPU seconds of a young and of an old run's scrapes, and the largest memory seen."""
    spent, peak = [], 0
    for beat in range(OLD_BEATS + COUNTED_BEATS):
        for writer in writers:
            put_beats(run, writer, writer.name, range(beat, beat + 1), apart=True)
        before = sum(process.cpu_times()[:2]) if beat else 0.0
        scrape(url, patience_s=30 if beat == 0 else 0)
        spent.append(sum(process.cpu_times()[:2]) - before)
        peak = max(peak, process.memory_info().rss)
    young = statistics.median(spent[YOUNG_BEATS : YOUNG_BEATS + COUNTED_BEATS])
    return young, statistics.median(spent[OLD_BEATS:]), peak


def scrape(url: str, patience_s: float) -> None:
    """One scrape that must show every replica's requests."""
    from equipoise.errors import ServiceError

    deadline = time.monotonic() + patience_s
    while True:
        try:
            found = {sample.name: sample.value for sample in read_samples(url, "equipoise_requests_total")}
            break
        except ServiceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
    if found != {"equipoise_requests_total": REPLICAS * 400.0}:
        sys.exit(f"benchmarks.dollars: the exporter shows {found}")


class ray_page:  # noqa: N801 - used as a context manager
    """Ray's metrics page of a thousand replicas, on loopback; yields its URL."""

    def __enter__(self) -> str:
        lines = []
        for name, value, tags in (
            ("requests", 400, 'model="made",status="200"'),
            ("rows", 400, 'model="made"'),
            ("busy_seconds", 7.5, 'model="made"'),
        ):
            lines.append(f"# TYPE ray_equipoise_{name}_total counter")
            lines += [
                f'ray_equipoise_{name}_total{{{tags},replica="{number}",application="equipoise"}} {value}'
                for number in range(REPLICAS)
            ]
        # Ray's own metrics share the page, and outnumber ours.
        lines += [
            f'ray_serve_replica_processing_queries{{replica="{number}",kind="{kind}"}} 1.0'
            for number in range(REPLICAS)
            for kind in range(10)
        ]
        content = ("\n".join(lines) + "\n").encode()

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/metrics"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


# Metering


def training_figure(folder: Path) -> Measured:
    """Share that metering adds to a training step: with node clock and block, over without, in turn."""
    import torch

    from equipoise.pipeline.metered_node import metered_node

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(384, 1536), torch.nn.GELU(), torch.nn.Linear(1536, 384))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rows = torch.randn(64, 384)

    def train() -> float:
        start = time.process_time()
        for _ in range(STEPS):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(rows), rows).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return (time.process_time() - start) / STEPS

    train()
    run, ratios = RunFolder(folder), []
    node = config().cost.node
    for _ in range(ROUNDS):
        plain = train()
        with (
            metered_node(run, config(), node, "pipeline"),
            LedgerWriter(run, config(), "driver") as ledger,
            ledger.meter("training", cores=1),
        ):
            metered = train()
        ratios.append(metered / plain)
    return Measured("CPU of a training step, metered over not", statistics.median(ratios), 1.01, "lower")


def request_figure(folder: Path) -> Measured:
    """Share that metering adds to a request's CPU: counters and replica clock over the model's own time.

    The request is a batch of one on the smallest model that pays: a millisecond of CPU.
    """
    from equipoise_serving.metering import Meter
    from equipoise_serving.replica_ledger import ReplicaClock, ReplicaLedger

    count = 20_000

    async def count_requests(meter: Meter) -> None:
        for number in range(count):
            meter.count_request(200)
            meter.add_batch(1, 0.001)
            if number % 200 == 0:  # At 1,000 requests a second the counters are flushed every 200.
                meter.flush()
        await asyncio.sleep(0.3)

    meter = Meter("made")
    counting_s = cpu_seconds(lambda: asyncio.run(count_requests(meter))) / count
    clock = ReplicaClock(ReplicaLedger(str(folder), config(), config().cost.node), "made", 1, lambda: 0)
    beats = 50

    def beat() -> None:
        for _ in range(beats):
            clock._add()
            clock._writer.flush()

    # One beat of the clock serves the requests of twenty seconds, 1,000 a second.
    clock_s = cpu_seconds(beat) / beats / (1_000 * BEAT_S)
    clock.stop()
    return Measured(
        "CPU that metering adds to a request of 1 ms", (counting_s + clock_s) / 0.001, 0.01, "lower"
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
