from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.cli import show
from equipoise.config import RunConfig
from equipoise.costs.ledger_lines import node_line
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.errors import RunFolderError
from equipoise.measurement.quality import measure_quality, paired_drop
from equipoise.pipeline.summary import summarize
from equipoise.runs import TOKEN_LIKELIHOOD, Candidate, RunFolder
from equipoise.search.frontier import frontier
from equipoise.search.selection import explain, select
from equipoise.tasks import Answers
from equipoise.tasks.text_classification import TextClassification

SERVED = {
    "model": "tiny",
    "rows": 200,
    "rps": 812.5,
    "p50_ms": 3.1,
    "p99_ms": 9.9,
    "elapsed_s": 0.25,
    "connections": 16,
    "usd_per_1k": 0.002,
    "usd_per_1k_rps": 100.0,
    "agreement": 1.0,
    "differing_rows": [],
    "teacher": {
        "model": "teacher",
        "rows": 20,
        "rps": 90.0,
        "p50_ms": 20.0,
        "p99_ms": 40.0,
        "usd_per_1k": 0.01,
    },
}


@pytest.fixture
def config(run_config: Callable[..., RunConfig]) -> RunConfig:
    return run_config(constraints={"max_drop": 0.03})


@pytest.fixture
def started(tmp_path: Path, config: RunConfig) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.claim(config.model_dump(mode="json"))
    return run


@pytest.fixture
def searched(started: RunFolder, build_candidate: Callable[..., Candidate]) -> RunFolder:
    """A run whose search is done: four candidates, one of them rejected."""
    for candidate in (
        build_candidate(rps=20),
        build_candidate(engine="openvino", precision="int8", metric=0.94, rps=90, p99_ms=6),
        build_candidate((0, 5), "openvino", "int8", metric=0.935, rps=400, p99_ms=3),
        build_candidate((0, 5), metric=0.9, robustness=0.8, rps=15, p99_ms=30),
        build_candidate(engine="onnxruntime", precision="int8_dynamic", rps=60, rejection="depends"),
    ):
        started.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    return started


@pytest.fixture
def chosen(searched: RunFolder, config: RunConfig) -> RunFolder:
    candidates = searched.candidates()
    members = frontier(candidates, config.search.objectives)
    hashes = [member.recipe_hash for member in members]
    searched.put(
        {
            "objectives": list(config.search.objectives),
            "members": hashes,
            "dominated": [c.recipe_hash for c in candidates if c.eligible and c.recipe_hash not in hashes],
            "rejected": {c.recipe_hash: c.rejection for c in candidates if not c.eligible},
        },
        "frontier.json",
    )
    teacher = next(c for c in candidates if c.is_teacher)
    choice = select(candidates, config.constraints)
    searched.put(explain(choice, teacher, candidates, config.constraints), "choice.json")
    return searched


@pytest.fixture
def finished(chosen: RunFolder, config: RunConfig, tiny_task: TextClassification) -> RunFolder:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 200)
    figures = {}
    answers = {}
    for name, share in (("teacher", 0.95), ("choice", 0.93)):
        predicted = np.where(rng.random(200) < share, truth, (truth + 1) % 3)
        answers[name] = Answers(np.eye(3, dtype=np.float32)[predicted], np.arange(200))
        figures[name] = measure_quality(
            answers[name],
            truth,
            task=tiny_task,
            rows=200,
            temperature=1.0,
            resamples=100,
            seed=1,
        )
    drop = paired_drop(
        tiny_task, answers["teacher"], answers["choice"], truth, rows=200, resamples=100, seed=1
    )
    record: dict[str, Any] = {name: figure.model_dump(mode="json") for name, figure in figures.items()}
    chosen.put({**record, "rows": 200, "drop": drop.model_dump()}, "test.json")
    chosen.put(SERVED, "served.json")
    clock = iter([1_000.0, 1_100.0, 2_000.0, 2_050.0]).__next__
    with LedgerWriter(chosen, config, "driver-1", clock=clock) as ledger:
        with ledger.meter("training", cores=2):
            pass
        with ledger.meter("search", cores=2):
            pass
        for start in (0.0, 20.0):
            ledger.add(
                node_line(
                    run_id="tiny",
                    component="pipeline",
                    node=config.cost.node,
                    book=ledger.book,
                    start=start,
                    stop=start + 20,
                )
            )
    return chosen


def test_a_finished_run_is_told_whole(finished: RunFolder) -> None:
    summary = summarize(finished)
    assert (summary["candidates"], summary["structures"], summary["rejected"]) == (5, 2, 1)
    assert summary["engines"] == ["onnxruntime", "openvino", "torch"]
    frontier_record = finished.read("frontier.json")
    assert summary["frontier"] == len(frontier_record["members"])
    assert summary["frontier"] + summary["dominated"] + summary["rejected"] == 5
    assert summary["dominated"] >= 1
    assert summary["name"] == "tiny"
    assert json.loads(json.dumps(summary)) == summary


def test_the_choice_is_told_with_test_figures_and_prices(finished: RunFolder) -> None:
    choice = summarize(finished)["choice"]
    by_hash = {candidate.recipe_hash: candidate for candidate in finished.candidates()}
    chosen = by_hash[choice["recipe_hash"]]
    teacher = next(candidate for candidate in by_hash.values() if candidate.is_teacher)
    assert choice["recipe"] == chosen.recipe.label == "2 layers (0,5) int8 openvino"
    test = finished.read("test.json")
    assert choice["split"] == "test"
    assert choice["metric_drop"] == test["drop"]["value"]
    assert choice["metric_drop_ci"] == [test["drop"]["low"], test["drop"]["high"]]
    assert choice["metric_drop"] == pytest.approx(choice["teacher_metric"] - choice["metric"])
    assert choice["serving_usd_per_1k"] == chosen.cost.serving_usd_per_1k
    assert choice["teacher_serving_usd_per_1k"] == teacher.cost.serving_usd_per_1k
    assert choice["total_usd_per_1k"] == chosen.cost.total_usd_per_1k > choice["serving_usd_per_1k"]
    assert choice["rps"] == 100
    assert choice["cost_ratio"] == pytest.approx(
        choice["serving_usd_per_1k"] / choice["teacher_serving_usd_per_1k"]
    )


def test_of_a_language_model_perplexity_stands_beside_the_metric_and_nothing_was_served(
    finished: RunFolder,
) -> None:
    test = finished.read("test.json")
    for side in ("teacher", "choice"):
        test[side] |= {"metric_name": TOKEN_LIKELIHOOD, "macro_f1": None}
    finished.put(test, "test.json")
    Path(finished.path("served.json")).unlink()
    summary = summarize(finished)
    assert summary["served"] is None
    choice = summary["choice"]
    assert choice["perplexity"] == pytest.approx(1 / choice["metric"])
    assert choice["teacher_perplexity"] == pytest.approx(1 / choice["teacher_metric"])
    assert "macro_f1" not in choice
    told = "\n".join(show._sentences(summary))
    assert f"perplexity {choice['perplexity']:.2f}, teacher {choice['teacher_perplexity']:.2f}" in told
    assert "macro-F1" not in told
    assert "HTTP" not in told


def test_the_served_figures_and_the_bill_are_told(finished: RunFolder, config: RunConfig) -> None:
    summary = summarize(finished)
    assert {key: summary["served"][key] for key in ("rows", "agreement", "rps", "p50_ms", "p99_ms")} == {
        key: SERVED[key] for key in ("rows", "agreement", "rps", "p50_ms", "p99_ms")
    }
    assert "differing_rows" not in summary["served"]
    parts = summary["ledger_usd_by_component"]
    assert parts["training"] == pytest.approx(2 * parts["search"])
    assert summary["ledger_usd"] == pytest.approx(sum(parts.values()))
    assert summary["ledger_usd"] > 0
    # Node lines are the clock; they are not billed twice.
    assert summary["elapsed_s"] == 40


def test_before_the_test_stage_the_drop_is_validations(chosen: RunFolder) -> None:
    summary = summarize(chosen)
    assert summary["choice"]["split"] == "validation"
    assert summary["choice"]["metric_drop"] == pytest.approx(0.015)
    assert "metric" not in summary["choice"]
    assert summary["served"] is None


def test_stages_not_reached_are_none(started: RunFolder) -> None:
    summary = summarize(started)
    assert summary["candidates"] == 0
    assert [summary[key] for key in ("frontier", "dominated", "choice", "served")] == [None] * 4
    assert summary["ledger_usd"] == summary["elapsed_s"] == 0


def test_no_choice_is_told_with_its_reason(searched: RunFolder) -> None:
    searched.put({"feasible": False, "reason": "p99_ms binds", "teacher_hash": "x"}, "choice.json")
    assert summarize(searched)["choice"] == {"feasible": False, "reason": "p99_ms binds"}


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no config\.json"):
        summarize(RunFolder(tmp_path))
