"""An endpoint that stays up on this machine, with its cost exporter beside it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from equipoise import ray_runtime
from equipoise.bundle import MANIFEST, Bundle, open_bundle
from equipoise.config.cost import CostConfig
from equipoise.config.serving import ServingConfig
from equipoise.costs.price_book import core_second_usd, load_prices
from equipoise.data import Layout
from equipoise.errors import EquipoiseError, InterruptedRunError, ServiceError
from equipoise.exporter.client import read_metric
from equipoise.pipeline.metered_node import metered_node
from equipoise.pipeline.preflight import check_port
from equipoise.runs import RunFolder
from equipoise_serving.replica_ledger import ReplicaLedger, open_replica_ledger
from equipoise_serving.writable import check_writes, is_language_model

_START_S = 30.0
_LOOK_S = 2.0
"""Between two looks at the bundle's folder."""
_CURL = (
    "try: curl -s {url}/v1/predict -H 'content-type: application/json' "
    '-d \'{{"inputs": "a text to classify"}}\''
)


def is_served(layout: Layout) -> bool:
    """Whether a run serves its test split; a language model scores it, while its endpoint writes."""
    return layout != "prompt"


def keep_serving(
    bundle: Bundle,
    config: ServingConfig,
    run: Path | None,
    tell: Callable[[str], None],
    *,
    follow: bool = False,
) -> None:
    """Serve until interrupted; with a run folder, the node and its replicas are metered and exported too.

    Args:
        bundle: what is served.
        config: where, and by how many replicas.
        run: the run folder that the bundle is of; None for a bundle alone.
        tell: takes what a person is told.
        follow: whether a bundle that takes this one's place on the disk is served in its stead.

    Raises:
        BundleError: a language model whose engine cannot write.
        ConfigError: a language model whose replicas are to be scaled.
    """
    check_writes(bundle.manifest, config, str(bundle.folder))
    if run is None:
        _serve(bundle, config, None, None, tell, follow)
        return
    ledger = open_replica_ledger(str(run))
    with metered_node(RunFolder(run), ledger.config, ledger.node, "serving", ledger.usd_per_hour):
        _serve(bundle, config, run, ledger, tell, follow)


def _serve(
    bundle: Bundle,
    config: ServingConfig,
    run: Path | None,
    ledger: ReplicaLedger | None,
    tell: Callable[[str], None],
    follow: bool,
) -> None:
    started = ray_runtime.start_ray()
    try:
        from equipoise_serving.app import measured_capacity
        from equipoise_serving.endpoint import deploy, undeploy

        name = bundle.manifest.name
        cost = ledger.config.cost if ledger else CostConfig()
        usd_per_core_second = (
            ledger.usd_per_core_second if ledger else core_second_usd(load_prices(cost), cost.node)
        )

        def serve(found: Bundle) -> str:
            return deploy(
                found.folder,
                config,
                model_name=name,
                # Half, so that a new version finds room beside the old one.
                num_cpus=config.cores_per_replica / 2,
                usd_per_core_second=usd_per_core_second,
                capacity=measured_capacity(found.manifest.candidate, cost),
                ledger=ledger,
            )

        url = serve(bundle)
        tell(f"serving {name} ({bundle.manifest.engine} {bundle.manifest.precision}) at {url}")
        if is_language_model(bundle.manifest):
            tell(f"OpenAI's API: base_url {url}/v1, model {name}")
        else:
            tell(_CURL.format(url=url))
            tell(f"a page to try it: {url}/")
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
            _wait(bundle, serve if follow else None, tell)
    except KeyboardInterrupt:
        raise InterruptedRunError("stopped", where=bundle.manifest.name) from None
    finally:
        ray_runtime.stop_ray()


def _wait(bundle: Bundle, serve: Callable[[Bundle], str] | None, tell: Callable[[str], None]) -> None:
    """Wait for ever; with `serve`, give it each new bundle that stands in the first one's place."""
    digest = bundle.manifest.digest
    while True:
        time.sleep(_LOOK_S)
        if serve is None or _digest_of(bundle.folder) in (None, digest):
            continue
        try:
            found = open_bundle(bundle.folder)
            serve(found)
        except EquipoiseError as error:
            # Told once; what is served stays, and the next change is looked at again.
            digest = _digest_of(bundle.folder) or digest
            tell(f"the new bundle is not served: {error}")
            continue
        digest = found.manifest.digest
        tell(f"now serving {found.manifest.engine} {found.manifest.precision}, digest {digest[:12]}")


def _digest_of(folder: Path) -> str | None:
    """The digest that a bundle states; None where there is none to read at the moment."""
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
