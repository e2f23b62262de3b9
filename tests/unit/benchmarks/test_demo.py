from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.demo import demo_figures, is_finished, main, tree_bytes

from equipoise.cli.shipped import shipped_config
from equipoise.config import load_config
from equipoise.errors import RunFolderError
from equipoise.runs import RunFolder

SUMMARY: dict[str, Any] = {
    "candidates": 14,
    "structures": 4,
    "engines": ["onnxruntime", "openvino", "torch"],
    "frontier": 10,
    "elapsed_s": 540.0,
    "choice": {"cost_ratio": 0.1, "metric_drop": -0.01, "teacher_replicas": 46},
    "served": {"agreement": 1.0},
}


def test_a_good_run_meets_every_goal() -> None:
    figures = demo_figures(SUMMARY, peak_gib=6.5)
    assert [figure.name for figure in figures if not figure.met] == []
    values = {figure.name: figure.value for figure in figures}
    assert values["engines"] == 3
    assert values["minutes from start to report"] == 9.0
    assert values["peak memory of all processes, GiB"] == 6.5


@pytest.mark.parametrize(
    ("section", "key", "value", "short"),
    [
        (None, "candidates", 11, "candidates measured"),
        (None, "structures", 2, "structures"),
        (None, "engines", ["torch", "openvino"], "engines"),
        (None, "frontier", 3, "candidates on the frontier"),
        (None, "elapsed_s", 601.0, "minutes from start to report"),
        ("choice", "cost_ratio", 0.126, "serving cost, choice over teacher"),
        ("choice", "metric_drop", 0.0101, "metric drop on test"),
        ("choice", "teacher_replicas", 11, "teacher replicas at the declared rate"),
        ("served", "agreement", 0.998, "served labels equal to the bundle's"),
    ],
)
def test_each_figure_can_fall_short_by_itself(section: str | None, key: str, value: Any, short: str) -> None:
    summary = copy.deepcopy(SUMMARY)
    (summary[section] if section else summary)[key] = value
    assert [figure.name for figure in demo_figures(summary) if not figure.met] == [short]


def test_memory_is_a_figure_only_where_it_was_measured() -> None:
    assert "peak memory of all processes, GiB" not in {figure.name for figure in demo_figures(SUMMARY)}


def test_the_memory_of_a_process_tree_counts_its_children() -> None:
    before = tree_bytes(os.getpid())
    code = "import sys; held = b'x' * 2**26; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = tree_bytes(os.getpid())
        alone = tree_bytes(child.pid)
        child.communicate()
    assert alone >= 2**26
    assert during >= before + 2**26
    assert tree_bytes(child.pid) == 0


def test_a_run_is_finished_once_it_was_served_and_reported(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not is_finished(run)
    run.claim(load_config(shipped_config("demo")).model_dump(mode="json"))
    assert not is_finished(run)
    run.put({}, "served.json")
    (tmp_path / "report.html").touch()
    assert is_finished(run)


def test_another_run_is_not_taken_for_the_demo(tmp_path: Path) -> None:
    config = load_config(shipped_config("demo")).model_dump(mode="json")
    config["cost"]["rps"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunFolderError, match=r"cost\.rps differs"):
        is_finished(RunFolder(tmp_path))
    with pytest.raises(SystemExit, match=r"cost\.rps differs"):
        main(["--run", str(tmp_path)])
