from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise.config import RunConfig
from equipoise.runs import Candidate, RunFolder

Equipoise = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(
    tmp_path: Path, run_config: Callable[..., RunConfig], build_candidate: Callable[..., Candidate]
) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.claim(run_config(constraints={"max_drop": 0.03}).model_dump(mode="json"))
    for candidate in (
        build_candidate(rps=20),
        build_candidate(engine="openvino", precision="int8", metric=0.945, rps=90, p99_ms=6),
        build_candidate((0, 5), "openvino", "int8", metric=0.93, rps=400, p99_ms=3),
    ):
        folder.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    return folder


def test_the_answer_in_words(equipoise: Equipoise, run: RunFolder) -> None:
    found = equipoise("choose", run.location, "--max-drop", "1%", "--p99-ms", "10", "--rps", "50")
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[0].startswith("choose: 6 layers (0-5) int8 openvino")
    assert "at 50 requests/s" in found.stdout
    assert "saves $" in found.stdout
    assert "1 replica " in found.stdout
    table = {line[:20].strip(): line[20:].split() for line in lines if line[:20].strip()}
    assert table["metric drop"][:6] == ["0.01", "0.005", "0", "to", "0.01", "0.005"]
    assert table["latency p99 (ms)"][:6] == ["10", "6", "5.995", "to", "6.005", "4"]


def test_the_answer_for_a_script(equipoise: Equipoise, run: RunFolder) -> None:
    found = equipoise("choose", run.location, "--max-drop", "none", "--json")
    assert found.returncode == 0, found.stderr
    record = json.loads(found.stdout)
    assert record["feasible"] is True
    assert record["constraints"] == {}
    assert record["label"] == "2 layers (0,5) int8 openvino"


def test_nothing_fits_is_status_3_with_what_binds_and_what_is_nearest(
    equipoise: Equipoise, run: RunFolder
) -> None:
    found = equipoise("choose", run.location, "--p99-ms", "2")
    assert found.returncode == 3
    assert found.stderr.startswith("equipoise: constraints.p99_ms: no candidate meets the constraints")
    assert found.stderr.count("\n") == 1
    assert "nearest: 2 layers (0,5) int8 openvino" in found.stdout
    assert "latency p99 (ms) of 3 alone would be enough" in found.stdout
    record = json.loads(equipoise("choose", run.location, "--p99-ms", "2", "--json").stdout)
    assert record["feasible"] is False
    assert record["binding"] == "p99_ms"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-drop", "cheap"), "not a number"),
        (("--max-drop", "nan"), "not a finite number"),
        (("--max-drop", "300%"), "max_drop"),
        (("--p99-ms", "0"), "p99_ms"),
        (("--rps", "0"), "rps"),
    ],
)
def test_a_wrong_bound_is_status_2(
    equipoise: Equipoise, run: RunFolder, arguments: tuple[str, ...], said: str
) -> None:
    found = equipoise("choose", run.location, *arguments)
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_choosing_loads_nothing_heavy(run: RunFolder) -> None:
    heavy = (
        "torch",
        "ray",
        "transformers",
        "optuna",
        "onnxruntime",
        "openvino",
        "scipy",
        "sklearn",
        "plotly",
    )
    code = (
        "import sys; from equipoise.pipeline.decision import decide; from equipoise.runs import RunFolder; "
        f"decide(RunFolder({run.location!r}), {{}}, 50); print([n for n in {heavy!r} if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert found.stdout.strip() == "[]", found.stderr
