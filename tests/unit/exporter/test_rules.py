"""The rules by promtool, and every query of rules and page by a real Prometheus that scrapes an exporter."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.config import RunConfig
from equipoise.costs.ledger_lines import node_line
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.exporter.rules import RULES
from equipoise.exporter.server import start_exporter
from equipoise.ray_runtime import free_port
from equipoise.runs import Candidate, RunFolder

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on the PATH; Debian's package `prometheus` has it")
    return found


def test_the_rules_are_sound() -> None:
    checked = subprocess.run([tool("promtool"), "check", "rules", str(RULES)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_the_rules_do_what_their_tests_say() -> None:
    file = Path(__file__).with_name("rules_test.yaml")
    tested = subprocess.run([tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr + tested.stdout


def test_every_alert_has_a_test() -> None:
    tests = yaml.safe_load(Path(__file__).with_name("rules_test.yaml").read_text())["tests"]
    tested = {alert["alertname"] for test in tests for alert in test.get("alert_rule_test", ())}
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert tested == alerts


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries(repository: Path) -> list[str]:
    """Expressions of the rules, and what stands in the page's promql blocks, one a line."""
    page = (repository / "docs" / "metrics.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```promql\n(.*?)```", page, flags=re.DOTALL)
    written = [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]
    assert len(written) >= 5
    return [rule["expr"] for rule in rules()] + written


@pytest.fixture
def served_run(
    tmp_path: Path, run_config: Callable[..., RunConfig], build_candidate: Callable[..., Candidate]
) -> RunFolder:
    """A run that chose a student and has served it for the last ten minutes."""
    run = RunFolder(tmp_path / "run")
    config = run_config()
    teacher, choice = build_candidate(), build_candidate((0, 5), "openvino", "int8", rps=900.0)
    for candidate in (teacher, choice):
        run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    run.put(config.model_dump(mode="json"), "config.json")
    run.put({"members": [teacher.recipe_hash, choice.recipe_hash]}, "frontier.json")
    record = {"feasible": True, "recipe_hash": choice.recipe_hash, "teacher_hash": teacher.recipe_hash}
    run.put(record, "choice.json")
    now = time.time()
    with LedgerWriter(run, config, "replica") as writer:
        for second in range(-600, 0, 20):
            start, stop = now + second, now + second + 20
            writer.add(
                writer.usage(
                    "serving", start, stop, cores=1, detail="tiny", resource_type="replica",
                    resource_id="replica-1", requests=2000,
                )
            )  # fmt: skip
            writer.add(
                node_line(
                    run_id="tiny", component="serving", node=writer.node, book=writer.book, start=start,
                    stop=stop,
                )
            )  # fmt: skip
    return run


@pytest.fixture
def prometheus(tmp_path: Path, served_run: RunFolder, ray_page: Any) -> Iterator[str]:
    """A Prometheus on loopback that scrapes an exporter of the run every second."""
    command = tool("prometheus")
    ray_page.requests.labels("tiny", "200", "r1").inc(1000)
    ray_page.busy.labels("tiny", "r1").inc(1)
    exporter = start_exporter(served_run.location, ray_metrics_url=ray_page.url, port=0)
    target = exporter.url.removeprefix("http://").removesuffix("/metrics")
    rule_file = tmp_path / "rules.yaml"
    rule_file.write_text(RULES.read_text().replace("interval: 30s", "interval: 1s"))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rule_file)],
        "scrape_configs": [{"job_name": "equipoise", "static_configs": [{"targets": [target]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                command,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            yield url
        finally:
            process.terminate()
            process.wait(timeout=20)
            exporter.stop()


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """Result of an instant query; fails where Prometheus refuses it."""
    text = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with _direct.open(text, timeout=10) as response:
        answer = json.load(response)
    assert answer["status"] == "success", (query, answer)
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def wait_for(url: str, query: str, timeout_s: float = 60) -> list[dict[str, Any]]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if found := ask(url, query):
                return found
        except OSError:
            pass  # It has not started yet.
        time.sleep(0.5)
    pytest.fail(f"Prometheus has nothing for {query}")


def test_every_query_runs_on_a_real_prometheus(
    prometheus: str, served_run: RunFolder, repository: Path
) -> None:
    (found,) = wait_for(prometheus, "equipoise:spend_burn:rate5m")
    assert found["metric"]["run"] == "tiny"
    for query in queries(repository):
        ask(prometheus, query)
    for name in (rule["record"] for rule in rules() if "record" in rule):
        assert wait_for(prometheus, name), name

    (per_1k,) = ask(prometheus, 'equipoise_usd_per_1k_requests{window="5m"}')
    # Half of a c7i.large for 100 requests a second.
    expected = 0.08925 / 2 / 3600 / 100 * 1000
    assert float(per_1k["value"][1]) == pytest.approx(expected)
    (rate,) = ask(prometheus, 'equipoise_answered_requests_per_second{window="5m"}')
    # The window moves on between the last request and the scrape.
    assert float(rate["value"][1]) == pytest.approx(100, rel=0.02)
    (idle,) = ask(prometheus, 'equipoise_idle_share{window="5m"}')
    assert float(idle["value"][1]) == pytest.approx(0.5)
    (size,) = ask(prometheus, "equipoise_frontier_size")
    assert float(size["value"][1]) == 2
    (saved,) = ask(prometheus, "equipoise_saved_usd")
    # 45 requests a second at 80% each: the teacher takes three replicas for 100, the choice one.
    assert float(saved["value"][1]) == pytest.approx(600 * 2 * 0.08925 / 2 / 3600, rel=0.2)
