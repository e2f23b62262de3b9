"""An endpoint that stays up on this machine, with its cost exporter beside it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from equipoise import ray_runtime
from equipoise.bundle import Bundle
from equipoise.config import RunConfig, validate_config
from equipoise.config.cost import CostConfig
from equipoise.config.serving import ServingConfig
from equipoise.costs.price_book import core_second_usd, load_prices
from equipoise.errors import InterruptedRunError, ServiceError
from equipoise.exporter.client import read_metric
from equipoise.pipeline.metered_node import metered_node
from equipoise.pipeline.preflight import check_port
from equipoise.runs import RunFolder
from equipoise_serving.replica_ledger import ReplicaLedger

_START_S = 30.0
_CURL = (
    "try: curl -s {url}/v1/predict -H 'content-type: application/json' "
    '-d \'{{"inputs": "a text to classify"}}\''
)


def keep_serving(
    bundle: Bundle, config: ServingConfig, run: Path | None, tell: Callable[[str], None]
) -> None:
    """Serve until interrupted; with a run folder, the node and its replicas are metered and exported too."""
    if run is None:
        _serve(bundle, config, None, None, tell)
        return
    folder = RunFolder(run)
    run_config = validate_config(RunConfig, folder.read("config.json"), where=folder.path("config.json"))
    ledger = ReplicaLedger(folder.location, run_config, run_config.cost.node)
    with metered_node(folder, run_config, ledger.node, "serving"):
        _serve(bundle, config, run, ledger, tell)


def _serve(
    bundle: Bundle,
    config: ServingConfig,
    run: Path | None,
    ledger: ReplicaLedger | None,
    tell: Callable[[str], None],
) -> None:
    started = ray_runtime.start_ray()
    try:
        from equipoise_serving.app import measured_capacity
        from equipoise_serving.endpoint import deploy, undeploy

        name = bundle.manifest.name
        cost = ledger.config.cost if ledger else CostConfig()
        url = deploy(
            bundle.folder,
            config,
            model_name=name,
            usd_per_core_second=core_second_usd(load_prices(cost), cost.node),
            capacity=measured_capacity(bundle.manifest.candidate, cost),
            ledger=ledger,
        )
        tell(f"serving {name} ({bundle.manifest.engine} {bundle.manifest.precision}) at {url}")
        tell(_CURL.format(url=url))
        tell(f"Ray's metrics: {started['metrics_url']}")
        with contextlib.ExitStack() as stack:
            stack.callback(undeploy)  # In order, so that each replica puts its last line.
            if run is not None:
                log = run / "logs" / "exporter.log"
                page = stack.enter_context(
                    running_exporter(str(run), config.metrics_port, started["metrics_url"], log)
                )
                tell(f"cost metrics: {page}")
            tell("Ctrl-C stops it")
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        raise InterruptedRunError("stopped", where=bundle.manifest.name) from None
    finally:
        ray_runtime.stop_ray()


@contextlib.contextmanager
def running_exporter(run: str, port: int, ray_metrics_url: str | None, log: Path) -> Iterator[str]:
    """The cost exporter as a process of its own on loopback; yields its metrics page.

    Raises:
        ServiceError: it does not start.
    """
    check_port("127.0.0.1", port, "serving.metrics_port")
    command = [sys.executable, "-m", "equipoise.cli.main", "exporter", run, "--port", str(port)]
    if ray_metrics_url:
        command += ["--ray-metrics-url", ray_metrics_url]
    log.parent.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}/metrics"
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603
        try:
            _wait_for(url, process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if read_metric(url, "equipoise_exporter_up", {"source": "config"}) is not None:
                return
        except ServiceError:
            time.sleep(0.2)
    raise ServiceError("the cost exporter did not start", where=url, remedy=f"see {log}")
