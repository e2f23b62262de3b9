"""Recording rules, alerts and dashboards, by Prometheus's own promtool where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "equipoise"
RULES = CHART / "rules" / "equipoise.yaml"
BOARDS = sorted((CHART / "dashboards").glob("*.json"))


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH (Debian's package prometheus has it)")
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_every_rule_and_alert_does_what_its_unit_test_says(promtool: str, tmp_path: Path) -> None:
    text = Path(__file__).with_name("rules_test.yaml").read_text(encoding="utf-8")
    tests = tmp_path / "rules_test.yaml"
    tests.write_text(text.replace("[RULES]", f"[{RULES}]"), encoding="utf-8")
    done = run(promtool, "test", "rules", str(tests))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_and_alert_has_a_unit_test() -> None:
    text = Path(__file__).with_name("rules_test.yaml").read_text(encoding="utf-8")
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    names = [rule.get("alert") or rule["record"] for group in groups for rule in group["rules"]]
    assert len(names) == len(set(names)) > 8
    untested = {name for name in names if name not in text}
    # Asserted through the alert that reads it.
    assert untested == {"equipoise:refused_share"}


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_is_promql(promtool: str, tmp_path: Path, path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    # Grafana's own variables stand for durations.
    plain = [re.sub(r"\$__(?:range|rate_interval)", "5m", query) for query in queries]
    rules = {
        "groups": [{"name": "g", "rules": [{"record": f"q{i}", "expr": q} for i, q in enumerate(plain)]}]
    }
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump(rules), encoding="utf-8")
    done = run(promtool, "check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_reads_what_is_recorded_and_explains_each_panel(path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    recorded = {
        rule["record"]
        for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    for panel in board["panels"]:
        assert len(panel["description"]) > 10
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert set(re.findall(r"\bequipoise:\w+", target["expr"])) <= recorded
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places)
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in board["panels"])
