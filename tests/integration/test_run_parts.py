"""`equipoise run --until`: each part goes on from the one before, and the whole run from all of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.ray_runtime import free_port

# Four tries at one run, each with a Ray of its own.
pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def test_parts_follow_each_other_and_repeat_nothing(
    runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> None:
    values = tiny_run(
        search={"trials": 2, "engines": ["torch"], "precisions": ["fp32"]},
        serving={"port": free_port(), "metrics_port": free_port(), "teacher_rows": 10},
    )
    file, folder = runs.write("parts.yaml", values), runs.folder / "parts"

    def until(*part: str) -> subprocess.CompletedProcess[str]:
        found: subprocess.CompletedProcess[str] = runs.call(
            "run", "-f", str(file), "--out", str(folder), "--json", *part
        )
        assert found.returncode == 0, found.stderr
        return found

    def weights() -> dict[str, int]:
        return {
            str(path.relative_to(folder)): path.stat().st_mtime_ns
            for name in ("teacher", "students")
            for path in (folder / name).rglob("*.safetensors")
        }

    tuned = until("--until", "finetune")
    assert "2/6 teacher" in tuned.stderr
    assert "3/6 search" not in tuned.stderr
    summary = json.loads(tuned.stdout)
    assert (summary["candidates"], summary["choice"], summary["ledger"]["reconciles"]) == (0, None, True)
    teacher = weights()
    assert list(teacher) == ["teacher/model.safetensors"]

    distilled = until("--until", "distill")
    assert "the student of 1 layer (0) is in students/" in distilled.stderr
    student = weights()
    assert len(student) == 2
    assert student.items() >= teacher.items()
    assert json.loads(distilled.stdout)["candidates"] == 0

    searched = json.loads(until("--until", "search").stdout)
    assert (searched["candidates"], searched["choice"]) == (2, None)
    assert (folder / "report.html").is_file()
    assert not (folder / "bundle").exists()
    measured = {path.name: path.stat().st_mtime_ns for path in (folder / "candidates").iterdir()}

    whole = json.loads(until().stdout)
    assert whole["choice"]["feasible"]
    assert whole["ledger"]["reconciles"]
    assert (folder / "served.json").is_file()
    assert weights() == student
    assert {path.name for path in (folder / "candidates").iterdir()} == set(measured)

    finished = runs.records(folder)
    assert "nothing to do" in until("--until", "finetune").stderr
    assert runs.records(folder).keys() == finished.keys()


def test_a_config_without_a_student_is_refused_before_anything_is_trained(
    runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> None:
    file, folder = runs.write("whole.yaml", tiny_run(search={"depths": [2]})), runs.folder / "whole"
    asked = ("run", "-f", str(file), "--out", str(folder), "--until", "distill")
    dry = runs.call(*asked, "--dry-run")
    assert not folder.exists()
    found = runs.call(*asked)
    for refused in (dry, found):
        assert refused.returncode == 2
        assert "search.depths: the config names no student to distil" in refused.stderr.splitlines()[-1]
    assert not (Path(folder) / "teacher").exists()
