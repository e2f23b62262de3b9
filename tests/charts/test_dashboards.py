"""Rules and dashboards in a real Prometheus: no panel is empty, no rule fails.

The exporter is real, its ledger grows as a writer lets it grow. Ray's page is a stand-in with the names and
labels of Ray's; test_serve_config.py finds each of these names on the page of a real Ray.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from equipoise.config import RunConfig
from equipoise.costs.ledger_lines import node_line
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.exporter.server import start_exporter
from equipoise.ray_runtime import free_port
from equipoise.runs import Candidate, LedgerLine, RunFolder
from equipoise.storage import put_bytes

CHART = Path(__file__).resolve().parents[2] / "charts" / "equipoise"


def _records() -> ModuleType:
    """Fixtures of the unit tests that make records of a run."""
    path = Path(__file__).resolve().parents[1] / "unit" / "conftest.py"
    spec = importlib.util.spec_from_file_location("unit_records", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_candidate = _records().build_candidate


def rule_groups() -> list[dict[str, Any]]:
    """Groups of every file of rules that the chart installs."""
    files = sorted((CHART / "rules").glob("*.yaml"))
    return [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]


def recorded_series() -> dict[str, str]:
    """The expression of each series that the rules record."""
    return {
        rule["record"]: rule["expr"] for group in rule_groups() for rule in group["rules"] if "record" in rule
    }


def alert_selectors() -> dict[str, list[str]]:
    """What each alert looks at, without the comparison that it rings by."""
    return {
        rule["alert"]: re.findall(r"\b\w*equipoise[_:][\w:]+(?:\{[^}]*\})?", rule["expr"])
        for group in rule_groups()
        for rule in group["rules"]
        if "alert" in rule
    }


def panel_queries() -> dict[str, str]:
    """Query by board, panel and letter; Grafana's own variables stand for durations."""
    found = {}
    for path in (CHART / "dashboards").glob("*.json"):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                query = re.sub(r"\$__(?:range|rate_interval)", "1m", target["expr"])
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = query
    return found


# This machine has neither Ray's node agent nor a GPU: names and labels are the agent's, the values invented.
NODE_PAGE = """\
ray_node_cpu_utilization{instance="gpu-1"} 42.5
ray_node_mem_used{instance="gpu-1"} 8.1e9
ray_node_gpus_utilization{instance="gpu-1",GpuIndex="0"} 71
"""

# Recorded form, from KubeRay's source: no operator runs here. Names, labels and help are those of
# ray-operator/controllers/ray/metrics/*.go at v1.7.0, the samples those of its own tests.
OPERATOR_PAGE = """\
# HELP kuberay_cluster_provisioned_duration_seconds The time, in seconds, when a RayCluster's \
`RayClusterProvisioned` status transitions from false (or unset) to true
# TYPE kuberay_cluster_provisioned_duration_seconds gauge
kuberay_cluster_provisioned_duration_seconds{name="cluster2",namespace="ns2",uid="uid2"} 20.3
kuberay_cluster_provisioned_duration_seconds{name="cluster3",namespace="ns1",uid="uid3"} 5.7
# HELP kuberay_job_deployment_status The RayJob's current deployment status
# TYPE kuberay_job_deployment_status gauge
kuberay_job_deployment_status{deployment_status="Failed",name="ray-job-2",namespace="ns2",\
uid="ray-job-2-uid"} 1
kuberay_job_deployment_status{deployment_status="Running",name="ray-job-1",namespace="ns1",\
uid="ray-job-1-uid"} 1
# HELP kuberay_service_condition_ready Describes whether the RayService is ready. Ready means users can send \
requests to the underlying cluster and the number of serve endpoints is greater than 0.
# TYPE kuberay_service_condition_ready gauge
kuberay_service_condition_ready{condition="false",name="ray-service-2",namespace="default",\
uid="ray-service-2-uid"} 1
kuberay_service_condition_ready{condition="true",name="ray-service-1",namespace="default",\
uid="ray-service-1-uid"} 1
# HELP kuberay_service_condition_upgrade_in_progress Describes whether the RayService is performing a \
zero-downtime upgrade.
# TYPE kuberay_service_condition_upgrade_in_progress gauge
kuberay_service_condition_upgrade_in_progress{condition="false",name="ray-service-2",namespace="default",\
uid="ray-service-2-uid"} 1
kuberay_service_condition_upgrade_in_progress{condition="true",name="ray-service-1",namespace="default",\
uid="ray-service-1-uid"} 1
"""


class NodePage(BaseHTTPRequestHandler):
    """Serves the samples of a node, and of KubeRay's operator."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write((NODE_PAGE + OPERATOR_PAGE).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


class RayPage:
    """What a serving Ray counts: a failed request, a refused one, and one of 3 ms whenever it is asked to."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._requests = Counter("ray_equipoise_requests", "-", ["model", "status"], registry=registry)
        self._busy = Counter("ray_equipoise_busy_seconds", "-", ["model"], registry=registry)
        self._latency = Histogram(
            "ray_serve_http_request_latency_ms", "-", ["application"], registry=registry
        )
        Gauge(
            "ray_serve_deployment_replica_healthy", "-", ["application", "deployment"], registry=registry
        ).labels("equipoise", "Replica").set(1)
        for status in ("500", "429"):
            self._requests.labels("tiny", status).inc()
        self._server, self._thread = start_http_server(0, addr="127.0.0.1", registry=registry)
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"

    def count_request(self) -> None:
        """One more."""
        self._requests.labels("tiny", "200").inc()
        self._busy.labels("tiny").inc(0.002)
        self._latency.labels("equipoise").observe(3)

    def stop(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(frozen=True)
class Watched:
    """A run that is served, and the Prometheus that watches it."""

    run: Path
    ray: RayPage
    prometheus: str

    def work(self, second: int) -> None:
        """A second of work and one of idle time on the ledger, and a request."""
        self.ray.count_request()
        for charge in ("workload", "idle"):
            line = LedgerLine.model_validate(
                {
                    "run_id": "tiny",
                    "kind": "usage",
                    "component": "serving",
                    "charge_class": charge,
                    "resource": "aws/c7i.large",
                    "quantity": 1,
                    "unit": "core-seconds",
                    "list_unit_price": 0.00001,
                    "effective_unit_price": 0.00001,
                    "billed_cost_usd": 0.00001,
                    "period_start": "2026-01-01T00:00:00Z",
                    "period_end": "2026-01-01T00:00:01Z",
                }
            )
            name = f"{self.run}/ledger/{charge}/{second:06d}.jsonl"
            put_bytes(name, f"{line.model_dump_json()}\n".encode())

    def ask(self, path: str, **query: str) -> Any:
        """What Prometheus answers."""
        url = f"{self.prometheus}/api/v1/{path}?{urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def is_empty(self, query: str) -> bool:
        """Whether a query has no sample now."""
        return not self.ask("query", query=query)["result"]


@pytest.fixture
def served_run(
    tmp_path: Path, run_config: Callable[..., RunConfig], build_candidate: Callable[..., Candidate]
) -> Path:
    """A run that chose a student and has served it for the last ten minutes."""
    run, config = RunFolder(tmp_path / "run"), run_config()
    teacher, choice = build_candidate(), build_candidate((0, 5), "openvino", "int8", rps=900.0)
    for candidate in (teacher, choice):
        run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    run.put(config.model_dump(mode="json"), "config.json")
    run.put({"members": [teacher.recipe_hash, choice.recipe_hash]}, "frontier.json")
    record = {"feasible": True, "recipe_hash": choice.recipe_hash, "teacher_hash": teacher.recipe_hash}
    run.put(record, "choice.json")
    now = time.time()
    with LedgerWriter(run, config, "replica") as writer:
        node = {"run_id": config.name, "component": "serving", "node": writer.node, "book": writer.book}
        replica = {"resource_type": "replica", "resource_id": "replica-1", "requests": 2000}
        for start in (now + second for second in range(-600, 0, 20)):
            writer.add(writer.usage("serving", start, start + 20, cores=1, detail=config.name, **replica))
            writer.add(node_line(start=start, stop=start + 20, **node))
    return tmp_path / "run"


@pytest.fixture
def watched(tmp_path: Path, served_run: Path) -> Iterator[Watched]:
    """A real Prometheus on loopback that scrapes every second, with the chart's rules."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not on PATH (Debian's package prometheus has it)")
    ray = RayPage()
    exporter = start_exporter(str(served_run), ray_metrics_url=ray.url, port=0)
    page = HTTPServer(("127.0.0.1", 0), NodePage)
    thread = threading.Thread(target=page.serve_forever)
    thread.start()

    rules = {"groups": [{**group, "interval": "1s"} for group in rule_groups()]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    targets = [urlsplit(url).netloc for url in (ray.url, exporter.url)]
    targets.append(f"127.0.0.1:{page.server_port}")
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "test", "static_configs": [{"targets": targets}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    yield Watched(run=served_run, ray=ray, prometheus=f"http://127.0.0.1:{port}")
    process.terminate()
    process.wait(timeout=30)
    page.shutdown()
    page.server_close()
    thread.join()
    exporter.stop()
    ray.stop()


def values(watched: Watched, query: str, label: str) -> dict[str, float]:
    """A query's samples by one of their labels."""
    found = watched.ask("query", query=query)["result"]
    return {each["metric"][label]: float(each["value"][1]) for each in found}


def test_no_panel_is_empty_and_no_rule_fails(watched: Watched) -> None:
    # A rule records at its next evaluation what a panel shows at once.
    queries = panel_queries() | {name: name for name in recorded_series()}
    empty = sorted(queries)
    deadline = time.monotonic() + 60
    second = 0
    while empty and time.monotonic() < deadline:
        watched.work(second)
        second += 1
        time.sleep(1)
        if second > 5:
            empty = [name for name in empty if watched.is_empty(queries[name])]
    assert empty == []
    assert values(watched, queries["serving: RayServices: ready A"], "name") == {
        "ray-service-1": 1,
        "ray-service-2": 0,
    }
    assert values(watched, queries["serving: RayJobs by state A"], "deployment_status") == {
        "Failed": 1,
        "Running": 1,
    }
    rules = [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == sum(len(group["rules"]) for group in rule_groups())
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    assert {rule["name"] for rule in rules if rule["type"] == "recording"} == recorded_series().keys()
    # Each expression by itself, too: a recorded series outlives what it was made of for five minutes.
    assert [name for name, text in recorded_series().items() if watched.is_empty(text)] == []
    looked_at = alert_selectors()
    assert len(looked_at) > 8
    assert [name for name, selectors in looked_at.items() if not selectors] == []
    assert [
        (name, each) for name, selectors in looked_at.items() for each in selectors if watched.is_empty(each)
    ] == []
