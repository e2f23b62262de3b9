from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks import estimates

from equipoise.config.cost import CostConfig
from equipoise.costs.estimate import STAGES, RunSize, SeenRun
from equipoise.runs import RunFolder

SIZE = RunSize(
    teacher_rows=1000, teacher_depth=6, output_rows=1100, student_rows=1000, student_depths=(2,),
    candidates=4, judged_rows=500, workers=2, cores=2,
)  # fmt: skip


def seen(run: str, seconds: float, **changes: Any) -> SeenRun:
    values: dict[str, Any] = {
        "kind": "a",
        "fingerprint": "b",
        "size": SIZE,
        "start_s": 0,
        "student_start_s": 0,
    }
    return SeenRun(run=run, seconds=dict.fromkeys(STAGES, seconds), **{**values, **changes})


def test_what_a_run_recorded_is_taken(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    stages = {stage: {"estimated_s": 10.0, "actual_s": 12.0} for stage in STAGES}
    run.put({"basis": "timed steps", "stages": stages, "within_range": True}, "actual.json")
    held = estimates.hold(run, {})

    assert held is not None
    assert (held.basis, held.within_range) == ("timed steps", True)
    assert held.error("teacher", "students") == pytest.approx(0.2)
    assert estimates.largest([held], STAGES) == pytest.approx(0.2)


def test_a_run_without_an_estimate_is_held_against_its_like(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    own, other = seen(run.location, 12.0), seen("other", 10.0)
    held = estimates.hold(run, {run.location: own, "other": other})

    assert held is not None
    assert held.error(*STAGES) == pytest.approx(0.2)
    assert held.within_range
    elsewhere = seen("other", 10.0, fingerprint="c")
    assert estimates.hold(run, {run.location: own, "other": elsewhere}) is None
    assert estimates.hold(run, {run.location: own}) is None


def test_a_replica_that_is_slower_when_it_serves_shows(priced_run: RunFolder) -> None:
    name = priced_run.read("choice.json")["recipe_hash"]
    choice = next(c for c in priced_run.candidates() if c.recipe_hash == name)
    assert choice.cost.rps == CostConfig(rps=100).rps
    assert estimates.serving_error(priced_run) is None
    for factor, error in ((1.0, 0.0), (2.0, -0.5)):
        priced_run.put({"usd_per_1k": choice.cost.serving_usd_per_1k * factor}, "served.json")
        assert estimates.serving_error(priced_run) == pytest.approx(error)
