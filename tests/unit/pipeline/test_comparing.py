from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from equipoise.config import RunConfig
from equipoise.errors import InputError, RunFolderError
from equipoise.measurement.bootstrap import draw_resamples
from equipoise.pipeline.comparing import compare, find_candidate
from equipoise.runs import Candidate, RunFolder
from equipoise.runs.predictions import Predictions, put_predictions


@pytest.fixture
def run(
    tmp_path: Path, run_config: Callable[..., RunConfig], build_candidate: Callable[..., Candidate]
) -> RunFolder:
    """A run with a teacher and two students; the teacher and the first student have predictions."""
    folder = RunFolder(tmp_path / "run")
    folder.claim(run_config(measurement={"resamples": 200}).model_dump(mode="json"))
    folder.put({"labels": ["acq", "earn", "ship"]}, "data.json")
    candidates = [
        build_candidate(),
        build_candidate((0, 5), "openvino", "int8", rps=400, p99_ms=4),
        build_candidate((0,), "openvino", "int8", rps=800, hardware={"fingerprint": "other"}),
    ]
    for candidate in candidates:
        folder.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    folder.put({"feasible": True, "recipe_hash": candidates[1].recipe_hash}, "choice.json")
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 300)
    for candidate, share in zip(candidates[:2], (0.95, 0.9), strict=True):
        predicted = np.where(rng.random(300) < share, truth, (truth + 1) % 3)
        put_predictions(folder, candidate.recipe_hash, Predictions.of_rows(truth, predicted))
    return folder


def test_teacher_and_choice_side_by_side(run: RunFolder) -> None:
    found = compare(run, "teacher", "choice")
    assert found["first"]["is_teacher"] is True
    assert found["second"]["label"] == "2 layers (0,5) int8 openvino"
    assert found["figures"]["latency_p99_ms"]["first"] == 20
    assert found["figures"]["latency_p99_ms"]["ratio"] == pytest.approx(0.2)
    assert found["figures"]["gap"]["ratio"] is None
    assert found["predictions"]["rows"] == 300
    assert {entry["label"] for entry in found["predictions"]["classes"]} == {"acq", "earn", "ship"}
    assert found["predictions"]["accuracy_difference"]["value"] < 0


def test_the_metric_is_paired_where_one_of_them_is_the_teacher(run: RunFolder) -> None:
    there = compare(run, "teacher", "choice")["metric_difference"]
    back = compare(run, "choice", "teacher")["metric_difference"]
    drop = find_candidate(run, run.candidates(), "choice").metric_drop
    assert back == drop.model_dump()
    assert there == {"value": -drop.value, "low": -drop.high, "high": -drop.low, "n": drop.n}
    third = next(c for c in run.candidates() if c.recipe.depth == 1)
    assert compare(run, "choice", third.recipe_hash)["metric_difference"] is None


def test_the_paired_interval_is_the_one_of_the_runs_seed_and_resamples(run: RunFolder) -> None:
    found = compare(run, "teacher", "choice")["predictions"]["accuracy_difference"]
    right = []
    for candidate in (find_candidate(run, run.candidates(), name) for name in ("teacher", "choice")):
        table = np.load(run.local("candidates", f"{candidate.recipe_hash}.predictions.npy"))
        right.append((table[1] == table[2]).astype(float))
    drawn = (right[1] - right[0])[draw_resamples(300, 200, 13)].mean(axis=1)
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(drawn, (2.5, 97.5)).tolist())


def test_without_predictions_the_figures_still_stand(run: RunFolder) -> None:
    third = next(c for c in run.candidates() if c.recipe.depth == 1)
    found = compare(run, "teacher", third.recipe_hash[:8])
    assert found["predictions"] is None
    assert "(1 on other, 1 on unknown)" in found["hardware_note"]
    assert found["figures"]["throughput_rps"]["second"] == 800


def test_names_that_mean_nothing_or_too_much_are_refused(run: RunFolder) -> None:
    candidates = run.candidates()
    name = candidates[0].recipe_hash
    twins = [candidates[0], candidates[0].model_copy(update={"recipe_hash": name[:6] + "x"})]
    with pytest.raises(InputError, match="2 candidates go by that name"):
        find_candidate(run, twins, name[:4])
    for name in ("zz", "", "Teacher"):
        with pytest.raises(InputError, match="no candidate goes by that name"):
            find_candidate(run, candidates, name)
    run.put({"feasible": False, "reason": "", "teacher_hash": ""}, "choice.json")
    with pytest.raises(InputError, match="no candidate goes by that name"):
        find_candidate(run, candidates, "choice")


def test_candidates_of_different_rows_are_refused(run: RunFolder) -> None:
    choice = find_candidate(run, run.candidates(), "choice")
    put_predictions(run, choice.recipe_hash, Predictions.of_rows(np.array([0, 1]), np.array([0, 1])))
    with pytest.raises(RunFolderError, match="measured on different rows"):
        compare(run, "teacher", "choice")
