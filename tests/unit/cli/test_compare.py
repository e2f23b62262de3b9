from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from equipoise.config import RunConfig
from equipoise.runs import Candidate, RunFolder
from equipoise.runs.predictions import Predictions, put_predictions

Equipoise = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(
    tmp_path: Path, run_config: Callable[..., RunConfig], build_candidate: Callable[..., Candidate]
) -> RunFolder:
    """A teacher and a student that takes every third `ship` for `earn`."""
    folder = RunFolder(tmp_path / "run")
    folder.claim(run_config().model_dump(mode="json"))
    folder.put({"labels": ["acq", "earn", "ship"]}, "data.json")
    truth = np.arange(300) % 3
    worse = truth.copy()
    worse[2::9] = 1
    pair = (build_candidate(), build_candidate((0, 5), "openvino", "int8", rps=400, p99_ms=4))
    for candidate, predicted in zip(pair, (truth, worse), strict=True):
        folder.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
        put_predictions(folder, candidate.recipe_hash, Predictions.of_rows(truth, predicted))
    return folder


def test_what_a_student_gives_up_is_seen_by_class(equipoise: Equipoise, run: RunFolder) -> None:
    student = next(c for c in run.candidates() if not c.is_teacher)
    found = equipoise("compare", run.location, "teacher", student.recipe_hash[:6])
    assert found.returncode == 0, found.stderr
    assert "B: 2 layers (0,5) int8 openvino" in found.stdout
    lines = {line.split()[0]: line for line in found.stdout.splitlines() if line.strip()}
    assert lines["p99"].split()[-1] == "0.200"
    assert lines["ship"].split()[:4] == ["ship", "100", "1.000", "0.660"]
    assert lines["ship"].endswith(" *")
    assert not lines["acq"].endswith("*")
    assert "34 right in A alone" in found.stdout


def test_the_same_for_a_script(equipoise: Equipoise, run: RunFolder) -> None:
    student = next(c for c in run.candidates() if not c.is_teacher)
    found = equipoise("compare", run.location, student.recipe_hash, "teacher", "--json")
    assert found.returncode == 0, found.stderr
    record = json.loads(found.stdout)
    assert record["predictions"]["only_second"] == 34
    assert record["predictions"]["classes"][-1]["label"] == "ship"


def test_an_unknown_name_is_status_2(equipoise: Equipoise, run: RunFolder) -> None:
    found = equipoise("compare", run.location, "teacher", "nobody")
    assert found.returncode == 2
    assert "no candidate goes by that name (got 'nobody')" in found.stderr
