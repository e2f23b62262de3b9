"""The exporter over HTTP, read back with prometheus_client's own parser."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from equipoise.config import RunConfig
from equipoise.costs.lifecycle import replicas_needed, serving_usd_per_1k
from equipoise.costs.price_book import load_prices, replica_usd_per_hour
from equipoise.errors import ServiceError
from equipoise.exporter.client import read_metric
from equipoise.exporter.server import Exporter, start_exporter
from equipoise.ray_runtime import free_port
from equipoise.runs import RunFolder

Start = Callable[..., Exporter]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Exporter] = []

    def begin(ray_metrics_url: str | None = None) -> Exporter:
        running.append(start_exporter(str(tmp_path), ray_metrics_url=ray_metrics_url, port=0))
        return running[-1]

    yield begin
    for exporter in running:
        exporter.stop()


def up(exporter: Exporter, source: str) -> float | None:
    return read_metric(exporter.url, "equipoise_exporter_up", {"source": source})


def test_cost_grows_with_the_ledger(start: Start, put_lines: Callable[..., Path]) -> None:
    labels = {"run": "tiny", "component": "training", "term": "compute", "basis": "workload"}
    exporter = start()
    assert read_metric(exporter.url, "equipoise_cost_usd_total", labels) is None
    put_lines("driver/000000.jsonl", {"billed_cost_usd": 0.25})
    assert read_metric(exporter.url, "equipoise_cost_usd_total", labels) == 0.25
    put_lines("driver/000001.jsonl", {"billed_cost_usd": 0.5}, "not json")
    assert read_metric(exporter.url, "equipoise_cost_usd_total", labels) == 0.75
    assert read_metric(exporter.url, "equipoise_ledger_unreadable_lines_total") == 1
    assert up(exporter, "ledger") == 1
    assert up(exporter, "ray") is None


def test_served_counters_are_summed_over_replicas(start: Start, ray_page: Any) -> None:
    ray_page.requests.labels("tiny", "200", "r1").inc(30)
    ray_page.requests.labels("tiny", "200", "r2").inc(10)
    ray_page.requests.labels("tiny", "400", "r2").inc(5)
    ray_page.busy.labels("tiny", "r1").inc(0.5)
    ray_page.busy.labels("tiny", "r2").inc(0.25)
    exporter = start(ray_page.url)
    name = "equipoise_requests_total"
    assert read_metric(exporter.url, name, {"model": "tiny", "status": "200"}) == 40
    assert read_metric(exporter.url, name, {"model": "tiny", "status": "400"}) == 5
    assert read_metric(exporter.url, "equipoise_busy_seconds_total", {"model": "tiny"}) == 0.75
    assert up(exporter, "ray") == 1


def test_serving_price_is_that_of_whole_replicas_at_the_runs_traffic(
    start: Start, tmp_path: Path, ray_page: Any, run_config: Callable[..., RunConfig]
) -> None:
    config = run_config(cost={"rps": 250.0, "target_utilization": 0.5})
    ray_page.requests.labels("tiny", "200", "r1").inc(1000)
    ray_page.requests.labels("tiny", "500", "r1").inc(1000)
    ray_page.busy.labels("tiny", "r1").inc(4.5)
    exporter = start(ray_page.url)
    labels = {"model": "tiny", "rps": "250", "basis": "measured"}
    assert read_metric(exporter.url, "equipoise_serving_usd_per_1k", labels) is None
    assert up(exporter, "config") == 0

    RunFolder(tmp_path).put(config.model_dump(mode="json"), "config.json")
    # 4.5 ms a request at half utilization is 111 requests a second: 3 replicas for 250.
    assert replicas_needed(250, 0.5 / 0.0045) == 3
    usd_per_hour = replica_usd_per_hour(load_prices(config.cost), config.cost)
    found = read_metric(exporter.url, "equipoise_serving_usd_per_1k", labels)
    assert found == pytest.approx(serving_usd_per_1k(3, usd_per_hour, 250))
    assert up(exporter, "config") == 1


def test_no_price_before_the_first_success(
    start: Start, tmp_path: Path, ray_page: Any, run_config: Callable[..., RunConfig]
) -> None:
    RunFolder(tmp_path).put(run_config().model_dump(mode="json"), "config.json")
    ray_page.requests.labels("tiny", "500", "r1").inc(3)
    ray_page.busy.labels("tiny", "r1").inc(1)
    assert read_metric(start(ray_page.url).url, "equipoise_serving_usd_per_1k") is None


def test_damaged_config_is_said_and_the_rest_stands(
    start: Start, tmp_path: Path, put_lines: Callable[..., Path]
) -> None:
    put_lines("driver/000000.jsonl", {})
    (tmp_path / "config.json").write_text("{")
    exporter = start()
    assert up(exporter, "config") == 0
    assert read_metric(exporter.url, "equipoise_cost_usd_total") == 1


def test_unreachable_ray_is_said_and_the_rest_stands(start: Start, put_lines: Callable[..., Path]) -> None:
    put_lines("driver/000000.jsonl", {})
    exporter = start(f"http://127.0.0.1:{free_port()}/metrics")
    assert up(exporter, "ray") == 0
    assert read_metric(exporter.url, "equipoise_requests_total") is None
    assert read_metric(exporter.url, "equipoise_cost_usd_total") == 1


def test_scrapes_may_overlap(start: Start, put_lines: Callable[..., Path]) -> None:
    for number in range(50):
        put_lines(f"driver/{number:06d}.jsonl", {})
    exporter = start()
    found: list[float | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(read_metric(exporter.url, "equipoise_cost_usd_total")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [50] * 8


def test_listens_on_loopback(start: Start) -> None:
    port = int(start().url.split(":")[2].split("/")[0])
    listening = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert [address.ip for address in listening if address.port == port] == ["127.0.0.1"]


def test_page_is_prometheus_text(start: Start) -> None:
    with urllib.request.build_opener().open(start().url, timeout=5) as response:
        assert response.headers["content-type"].startswith("text/plain")
        assert b"# TYPE equipoise_cost_usd_total counter" in response.read()


def test_taken_port_is_named(start: Start, tmp_path: Path) -> None:
    port = int(start().url.split(":")[2].split("/")[0])
    with pytest.raises(ServiceError, match=f"127.0.0.1:{port}: cannot be listened on"):
        start_exporter(str(tmp_path), ray_metrics_url=None, port=port)
