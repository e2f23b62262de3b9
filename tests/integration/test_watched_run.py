"""A real run that is really served, watched by a real Prometheus: every panel and every rule of the chart.

Only what needs Kubernetes' node agent or a GPU is a recorded sample; names and labels are the agent's.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import yaml

from equipoise.ray_runtime import free_port

# A run, an endpoint, and a minute of requests.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

_START_S, _FILLED_S = 300, 240


@pytest.fixture(scope="module")
def boards() -> ModuleType:
    """The chart's queries, and the samples of a node that this machine is not."""
    path = Path(__file__).parents[1] / "charts" / "test_dashboards.py"
    spec = importlib.util.spec_from_file_location("chart_dashboards", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Its dataclasses look themselves up.
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def served(runs: Any, tiny_run: Callable[..., dict[str, Any]]) -> Iterator[dict[str, str]]:
    """A finished run's endpoint: addresses of the API, of Ray's metrics and of the dollars'."""
    ports = {"port": free_port(), "metrics_port": free_port()}
    values = tiny_run(search={"trials": 3}, serving={**ports, "teacher_rows": 20})
    folder = str(runs.folder / "run")
    found = runs.call("run", "-f", str(runs.write("run.yaml", values)), "--out", folder, timeout_s=800)
    assert found.returncode == 0, found.stderr
    process = runs.start("serve", folder)
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(iter(process.stdout.readline, "")))
    reader.start()
    deadline = time.monotonic() + _START_S
    while "Ctrl-C stops it" not in "".join(told):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, told
        time.sleep(0.3)
    text = "".join(told)
    yield {
        name: re.search(pattern, text)[1]  # type: ignore[index]
        for name, pattern in {
            "api": r" at (http://\S+)",
            "ray": r"Ray's metrics: (http://\S+)",
            "dollars": r"cost metrics: (http://\S+)",
        }.items()
    }
    runs.kill(process)
    reader.join(timeout=30)
    process.communicate()
    runs.clean()


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, served: dict[str, str], boards: ModuleType
) -> Iterator[str]:
    """A real Prometheus on loopback with the chart's rules, that scrapes the run each second."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not on PATH (Debian's package prometheus has it)")
    folder = tmp_path_factory.mktemp("prometheus")
    page = HTTPServer(("127.0.0.1", 0), boards.NodePage)
    thread = threading.Thread(target=page.serve_forever)
    thread.start()
    rules = {"groups": [{**group, "interval": "1s"} for group in boards.rule_groups()]}
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    targets = [urlsplit(served[name]).netloc for name in ("ray", "dollars")]
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": "run",
                "static_configs": [{"targets": [*targets, f"127.0.0.1:{page.server_port}"]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=30)
    page.shutdown()
    page.server_close()
    thread.join()


def ask(url: str, path: str, **query: str) -> Any:
    """What Prometheus answers; nothing while it starts."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{urlencode(query)}", timeout=10) as response:
            return json.load(response)["data"]
    except ConnectionError:
        return {"result": [], "groups": []}
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionError):
            return {"result": [], "groups": []}
        raise


def predict(url: str) -> None:
    """One request."""
    body = json.dumps({"inputs": "where is my parcel"}).encode()
    request = urllib.request.Request(f"{url}/v1/predict", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


def test_no_panel_of_a_served_run_is_empty_and_no_rule_fails(
    served: dict[str, str], prometheus: str, boards: ModuleType
) -> None:
    queries = boards.panel_queries()
    empty = sorted(queries)
    deadline = time.monotonic() + _FILLED_S
    while empty and time.monotonic() < deadline:
        for _ in range(5):
            predict(served["api"])
        time.sleep(1)
        empty = [name for name in empty if not ask(prometheus, "query", query=queries[name])["result"]]
    assert empty == []
    rules = [rule for group in ask(prometheus, "rules")["groups"] for rule in group["rules"]]
    assert len(rules) == sum(len(group["rules"]) for group in boards.rule_groups())
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    assert [name for name in recorded if not ask(prometheus, "query", query=name)["result"]] == []
