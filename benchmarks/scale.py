"""Rendering and metering 1,000 models of 10 replicas each, and whether a model costs more among many.

Each measurement is a process of its own, so that its peak memory is its own:
`python -m benchmarks.scale --measure render 1000` prints one. On a machine that does other things too,
`python -m benchmarks.scale --ratio render` measures few and many in turn, in one process, and prints what a
model among many costs over one among few.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.peak_memory import peak_mib
from benchmarks.record import REPOSITORY, Measured, measured_here_and_now, write_result

FEW, MANY = 10, 1_000
REPLICAS = 10
"""Of each model."""
RUNS = 3
_COMMAND = "python -m benchmarks.scale"


def main() -> None:
    """Measure, write `results/scale.json` and print its path."""
    figures = []
    for what, unit, seconds_goal, memory_goal in (
        ("render", "RayServices rendered", 30.0, 256.0),
        ("meter", "models metered in one scrape", 10.0, 512.0),
        ("ledger", "models whose replicas' ledgers are read", 30.0, 512.0),
    ):
        few, many = ([measure_apart(what, models) for _ in range(RUNS)] for models in (FEW, MANY))
        per_model = [
            statistics.median(found["cpu_s"] / found["models"] for found in runs) for runs in (few, many)
        ]
        seconds = statistics.median(found["cpu_s"] for found in many)
        peak = max(found["peak_mib"] for found in many)
        pods = f"{MANY * REPLICAS:,} replicas"
        figures += [
            Measured(
                f"{what}: CPU seconds a model among {MANY:,}, over those among {FEW}",
                per_model[1] / per_model[0],
                1.5,
                "lower",
            ),
            Measured(f"CPU seconds of {MANY:,} {unit}, {pods}", seconds, seconds_goal, "lower"),
            Measured(f"MiB at the peak of {MANY:,} {unit}, {pods}", peak, memory_goal, "lower"),
        ]
    print(write_result("scale", _COMMAND, figures, measured_here_and_now()))


def measure_apart(what: str, models: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--measure", what, str(models)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    measured: dict[str, float] = json.loads(found.stdout)
    return measured


def measure(what: str, models: int) -> dict[str, float]:
    """CPU seconds of one pass over so many models, and this process's peak memory.

    A pass over few models is repeated until it has done the work of many, and the mean taken: a
    single one is too short for the clock.
    """
    work = prepare(what, models)
    work()
    return {"models": models, "cpu_s": _cpu_s(work, models), "peak_mib": peak_mib()}


def measure_ratio(what: str) -> float:
    """CPU time of a model among many over that of one among few, measured in turn in this process."""
    works = {models: prepare(what, models) for models in (FEW, MANY)}
    found: dict[int, list[float]] = {FEW: [], MANY: []}
    for work in works.values():
        work()
    for _ in range(RUNS):
        for models, work in works.items():
            found[models].append(_cpu_s(work, models) / models)
    return statistics.median(found[MANY]) / statistics.median(found[FEW])


def prepare(what: str, models: int) -> Callable[[], None]:
    """One pass of a measurement over so many models."""
    return {"render": render_models, "meter": meter_models, "ledger": read_ledgers}[what](models)


def _cpu_s(work: Callable[[], None], models: int) -> float:
    passes = max(1, MANY // models)
    started = time.process_time()
    for _ in range(passes):
        work()
    return (time.process_time() - started) / passes


def render_models(models: int) -> Callable[[], None]:
    """Render the RayService of each model as YAML, one after the other, as a GitOps folder holds them."""
    from equipoise.cluster.manifests.text import to_yaml
    from equipoise.cluster.services import service_manifest
    from equipoise.config.cluster import ClusterConfig
    from equipoise.config.serving import ServingConfig

    group = {"cpus": REPLICAS, "memory_gib": 16, "min_workers": 1, "max_workers": 4}
    cluster = ClusterConfig.model_validate({"image": "registry.example/equipoise", "worker_groups": [group]})
    serving = ServingConfig(replicas=REPLICAS)

    def work() -> None:
        for number in range(models):
            name = f"model-{number:04d}"
            text = to_yaml(service_manifest(f"s3://models/{name}", name, cluster, serving))
            assert name in text

    return work


def meter_models(models: int) -> Callable[[], None]:
    """One scrape of the cost exporter: the counters of every replica, summed and priced by model."""
    from equipoise.config import RunConfig
    from equipoise.exporter.collector import CostCollector
    from equipoise.runs import RunFolder

    folder = tempfile.TemporaryDirectory(prefix="equipoise-scale-")
    config = RunConfig.model_validate(
        {"name": "scale", "data": {"train": "a", "test": "b"}, "model": {"teacher": "c"}}
    )
    RunFolder(folder.name).put(config.model_dump(mode="json"), "config.json")
    collector = CostCollector(folder.name, _serve(metrics_page(models).encode()))

    def work() -> None:
        assert Path(folder.name).is_dir()
        families = {family.name: family for family in collector.collect()}
        assert len(families["equipoise_serving_usd_per_1k"].samples) == models

    return work


def read_ledgers(models: int) -> Callable[[], None]:
    """Each model's ledger, a minute of each replica, read and summed as its exporter does at its start."""
    from equipoise.config.cost import CostConfig
    from equipoise.costs.ledger_lines import usage_line
    from equipoise.costs.price_book import load_prices
    from equipoise.exporter.ledger_totals import LedgerTotals

    folder = tempfile.TemporaryDirectory(prefix="equipoise-scale-")
    cost = CostConfig()
    book = load_prices(cost)
    lines = [
        usage_line(
            run_id="scale",
            component="serving",
            charge_class="workload",
            node=cost.node,
            book=book,
            cores=1,
            start=start,
            stop=start + 20,
            used_core_seconds=10,
            resource_type="replica",
            requests=100,
        ).model_dump_json()
        for start in (1.7e9, 1.7e9 + 20, 1.7e9 + 40)
    ]
    for model in range(models):
        for replica in range(REPLICAS):
            writer = Path(folder.name) / f"model-{model:04d}" / "ledger" / f"replica-{replica:08x}"
            writer.mkdir(parents=True)
            (writer / "000000.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def work() -> None:
        for model in range(models):
            totals = LedgerTotals(f"{folder.name}/model-{model:04d}")
            totals.refresh()
            assert not totals.unreadable_lines
            assert sum(totals.usd.values()) > 0

    return work


def metrics_page(models: int, replicas: int = REPLICAS) -> str:
    """The counters of so many replicas, with the labels that Ray gives each."""
    lines = []
    for model in range(models):
        for replica in range(replicas):
            labels = ",".join(
                f'{key}="{value}"'
                for key, value in {
                    "Component": "core_worker",
                    "NodeAddress": f"10.{model // 250}.{model % 250}.{replica}",
                    "SessionName": "session_2026-11-25_00-00-00_000000_1",
                    "Version": "2.60.0",
                    "WorkerId": f"{model:028x}{replica:028x}",
                    "application": "equipoise",
                    "deployment": "Replica",
                    "model": f"model-{model:04d}",
                    "replica": f"{model:04x}{replica:04x}",
                }.items()
            )
            for status in (200, 422, 429):
                lines.append(f'ray_equipoise_requests_total{{{labels},status="{status}"}} {1000 + replica}.0')
            lines.append(f"ray_equipoise_busy_seconds_total{{{labels}}} {1 + replica}.5")
    return "\n".join(lines) + "\n"


def _serve(page: bytes) -> str:
    """The URL of a page on loopback, for as long as this process lives."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/metrics"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    elif sys.argv[1:2] == ["--ratio"]:
        print(f"{measure_ratio(sys.argv[2]):.2f}")
    else:
        main()
