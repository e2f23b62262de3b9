"""The peers of a run, built and measured for real on a model of two layers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.peers import Figures, compare, hypervolume, members, optimize_with_olive

from equipoise.compression.export import export_model
from equipoise.config import RunConfig
from equipoise.data import prepare_data
from equipoise.errors import InputError
from equipoise.runs import Candidate, RunFolder
from equipoise.tasks import find_task

# Warnings of other packages about each other, at their own import.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)

TEACHER = Figures(metric=0.9, latency_ms=10.0)


@pytest.fixture
def run(
    tmp_path: Path,
    tiny_classifier: Path,
    run_config: Callable[..., RunConfig],
    build_candidate: Callable[..., Candidate],
) -> RunFolder:
    """A teacher of random weights, and as its candidates itself and its fp32 ONNX graph."""
    config = run_config(measurement={"resamples": 100})
    run = RunFolder(tmp_path / "run")
    run.claim(config.model_dump(mode="json"))
    teacher = run.local("teacher")
    shutil.copytree(tiny_classifier, teacher)
    labels = prepare_data(config, "text").labels
    task = find_task("text_classification").create(teacher, labels, config.model)
    run.put({"task": task.describe()}, "teacher", "trained.json")
    for candidate in (
        build_candidate(seconds={"train": 0.0, "quality": 2.0}),
        build_candidate(engine="onnxruntime", p99_ms=5.0, seconds={"train": 0.0, "quality": 3.0}),
    ):
        run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
        if candidate.recipe.engine == "onnxruntime":
            target = run.local("models", candidate.recipe_hash)
            target.mkdir(parents=True)
            options = {"engine": "onnxruntime", "precision": "fp32", "task": task, "calibration": []}
            export_model(teacher, target, **options, onnx_cache=tmp_path / "cache")
    return run


def test_a_point_counts_by_what_it_is_better_than_five_points_behind_at_the_teachers_latency() -> None:
    assert hypervolume([], TEACHER) == 0
    assert hypervolume([TEACHER], TEACHER) == 0
    assert hypervolume([Figures(0.84, 1.0)], TEACHER) == 0
    half = hypervolume([Figures(0.9, 5.0)], TEACHER)
    assert half == pytest.approx(0.05 * 0.6931, rel=1e-3)
    assert hypervolume([Figures(0.9, 2.5)], TEACHER) == pytest.approx(2 * half)
    # One that another beats on both counts adds nothing.
    assert hypervolume([Figures(0.9, 5.0), Figures(0.89, 6.0)], TEACHER) == pytest.approx(half)


def test_every_peer_is_built_and_measured_beside_the_frontier(run: RunFolder, tmp_path: Path) -> None:
    found = {each.name: each.value for each in compare(run, tmp_path / "scratch", None, requests=20)}
    subjects = ("onnxruntime dynamic int8", "nncf int8", "Equipoise, 6 layers (0-5) fp32 onnxruntime")
    for name in subjects:
        assert abs(found[f"{name}: metric on test less the teacher's"]) <= 1
        assert 0 < found[f"{name}: latency over the teacher's"] < 10
        assert found[f"{name}: seconds to build"] > 0
    # The same weights, exported: no label differs.
    assert found[f"{subjects[2]}: metric on test less the teacher's"] == 0


def test_a_run_is_held_to_what_it_had_measured_by_then(
    run: RunFolder, run_config: Callable[..., RunConfig]
) -> None:
    assert len(members(run, run_config(), None)[0]) == 1
    found, spent = members(run, run_config(), 2.5)
    assert (found, spent) in (([], 2.0), ([], 0.0))


def test_without_olive_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Olive wrote 0 models: .*No module named olive") as caught:
        optimize_with_olive(sys.executable, tmp_path, tmp_path / "olive")
    assert caught.value.where == "--olive"
    with pytest.raises(InputError, match="Olive does not run"):
        optimize_with_olive(str(tmp_path / "python"), tmp_path, tmp_path / "olive")
