"""A user's own CSV, from the command to the endpoint: one run to its end, once more, shown, and served."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from equipoise.bundle import open_bundle
from equipoise.costs.ledger import read_ledger
from equipoise.engines import Predictor, open_engine
from equipoise.pipeline.comparing import compare
from equipoise.ray_runtime import free_port
from equipoise.runs import RunFolder

# The run itself takes about a minute, in the setup of the first test.
pytestmark = pytest.mark.timeout(600)

TRIALS = 5
Files = dict[str, tuple[int, bytes]]


@dataclass(frozen=True)
class Finished:
    """A finished run, and what a second try of it did."""

    folder: Path
    values: dict[str, Any]
    first: subprocess.CompletedProcess[str]
    again: subprocess.CompletedProcess[str]
    files: Files
    files_again: Files
    left: list[str]

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)

    @property
    def summary(self) -> dict[str, Any]:
        """What the run printed, all of it."""
        found: dict[str, Any] = json.loads(self.first.stdout)
        return found


@pytest.fixture(scope="module")
def finished(runs: Any, tiny_run: Callable[..., dict[str, Any]]) -> Finished:
    values = tiny_run(
        search={"trials": TRIALS},
        serving={"port": free_port(), "metrics_port": free_port(), "teacher_rows": 20},
    )
    folder = runs.folder / "run"
    arguments = ("run", "-f", str(runs.write("run.yaml", values)), "--out", str(folder), "--json")
    first = runs.call(*arguments)
    assert first.returncode == 0, first.stderr
    left, files = runs.wait_until_none_is_left(), runs.records(folder)
    again = runs.call(*arguments)
    return Finished(folder, values, first, again, files, runs.records(folder), left)


def test_progress_goes_to_standard_error_and_nothing_runs_on(finished: Finished) -> None:
    told = finished.first.stderr
    for number, stage in enumerate(("data", "teacher", "search", "choice", "test", "report"), start=1):
        assert f"{number}/6 {stage}" in told
    assert "Traceback" not in told
    assert finished.left == []


def test_every_file_of_a_run_is_there(finished: Finished) -> None:
    for name in (
        "config.json",
        "data.json",
        "teacher/config.json",
        "teacher/model.safetensors",
        "teacher/tokenizer.json",
        "teacher/deepspeed.json",
        "work.json",
        "actual.json",
        "frontier.json",
        "choice.json",
        "bundle/bundle.json",
        "test.json",
        "served.json",
        "report.html",
    ):
        assert (finished.folder / name).stat().st_size > 0, name
    assert len(list((finished.folder / "candidates").glob("*.json"))) == TRIALS
    assert len(list((finished.folder / "ledger").glob("*/*.jsonl"))) > TRIALS
    assert not list(finished.folder.rglob(".tmp-*"))


def test_what_the_run_took_is_remembered_for_the_next_estimate(finished: Finished, runs: Any) -> None:
    took = finished.run.read("actual.json")
    assert took["total"]["actual_s"] == pytest.approx(
        sum(stage["actual_s"] for stage in took["stages"].values())
    )
    assert took["total"]["actual_s"] == pytest.approx(finished.summary["elapsed_s"], rel=0.2)
    found = runs.call("estimate", "-f", str(runs.folder / "run.yaml"), "--out", "next", "--json")
    assert found.returncode == 0, found.stderr
    estimate = json.loads(found.stdout)
    assert (estimate["basis"], estimate["runs"]) == ("earlier runs", 1)
    assert estimate["total_s"]["value"] == pytest.approx(took["total"]["actual_s"], rel=0.3)


def test_cost_and_rerank_tell_what_the_run_told(finished: Finished, runs: Any) -> None:
    location, choice = str(finished.folder), finished.summary["choice"]
    costed = json.loads(runs.call("cost", location, "--json").stdout)
    assert costed["candidate"]["terms"]["serving_usd_per_1k"] == choice["serving_usd_per_1k"]
    assert costed["candidate"]["terms"]["total_usd_per_1k"] == choice["total_usd_per_1k"]
    ranked = json.loads(runs.call("rerank", location, "--json").stdout)
    assert ranked["old"] == ranked["new"]
    assert ranked["old"]["recipe_hash"] == choice["recipe_hash"]


def test_the_summary_counts_what_the_folder_holds(finished: Finished) -> None:
    summary = finished.summary
    assert summary["candidates"] == TRIALS
    assert summary["structures"] == 2
    assert summary["engines"] == ["onnxruntime", "torch"]
    assert summary["frontier"] + summary["dominated"] + summary["rejected"] == TRIALS
    assert summary["ledger_usd"] == pytest.approx(sum(summary["ledger_usd_by_component"].values()))
    assert set(summary["ledger_usd_by_component"]) == {
        "training",
        "search",
        "evaluation",
        "serving",
        "storage",
        "pipeline",
    }
    assert summary["ledger"]["reconciles"]
    assert summary["ledger"]["difference"] < 0.001
    assert summary["elapsed_s"] > 10


def test_every_candidate_can_be_compared_with_the_teacher_row_by_row(finished: Finished) -> None:
    for candidate in finished.run.candidates():
        said = compare(finished.run, candidate.recipe_hash, "teacher")["predictions"]
        # The metric is accuracy, and the draws are the same: so is the paired difference.
        assert said["accuracy_difference"] == pytest.approx(candidate.metric_drop.model_dump())


def test_the_choice_is_told_as_it_is_on_record(finished: Finished) -> None:
    choice, test = finished.summary["choice"], finished.run.read("test.json")
    low, high = choice["metric_drop_ci"]
    assert low <= choice["metric_drop"] <= high
    assert choice["recipe"] == finished.run.read("choice.json")["label"]
    assert choice["metric_drop"] == test["drop"]["value"]
    assert choice["metric"] == test["choice"]["metric"]["value"]
    assert choice["cost_ratio"] == pytest.approx(
        choice["serving_usd_per_1k"] / choice["teacher_serving_usd_per_1k"]
    )
    assert choice["total_usd_per_1k"] > choice["serving_usd_per_1k"] > 0
    assert choice["rps"] == 100


def test_what_is_served_is_what_was_measured(finished: Finished) -> None:
    served = finished.summary["served"]
    assert served["rows"] == 60
    assert served["agreement"] >= 0.999
    assert 0 < served["p50_ms"] <= served["p99_ms"]
    assert served["rps"] > 0
    assert served["usd_per_1k"] == pytest.approx(finished.summary["choice"]["serving_usd_per_1k"])
    assert served["teacher"]["rows"] == 20


def test_the_teacher_learned_and_the_test_split_was_read_for_the_choice(finished: Finished) -> None:
    test = finished.run.read("test.json")
    assert test["rows"] == 60
    assert test["teacher"]["metric"]["value"] > 0.6
    assert test["recipe_hash"] == finished.run.read("choice.json")["recipe_hash"]


def test_the_cost_terms_of_every_candidate_add_up(finished: Finished) -> None:
    lines = read_ledger(finished.run)
    searched = math.fsum(line.billed_cost_usd for line in lines if line.component == "search")
    for candidate in finished.run.candidates():
        cost = candidate.cost
        assert cost.total_usd == pytest.approx(
            cost.compute_training_usd
            + cost.compute_search_usd
            + cost.compute_serving_usd
            + cost.storage_usd
            + cost.data_usd
            + cost.maintenance_usd
        )
        requests = cost.rps * 3600 * 730 * cost.horizon_months
        assert cost.total_usd_per_1k == pytest.approx(cost.total_usd / requests * 1000)
        assert cost.serving_usd_per_1k == pytest.approx(cost.compute_serving_usd / requests * 1000)
        assert cost.compute_search_usd == pytest.approx(0 if candidate.is_teacher else searched)
    assert searched > 0
    assert sum(candidate.is_teacher for candidate in finished.run.candidates()) == 1


def test_the_ledger_has_the_nodes_time_and_what_was_done_in_it(finished: Finished) -> None:
    lines = read_ledger(finished.run)
    nodes = [line for line in lines if line.kind == "node"]
    usage = [line for line in lines if line.kind == "usage"]
    assert nodes
    begun, ended = min(line.period_start for line in nodes), max(line.period_end for line in nodes)
    ran = [line for line in usage if line.unit == "core-seconds"]
    assert all(begun <= line.period_start <= line.period_end <= ended for line in ran)
    by_type = {kind: [line for line in ran if line.resource_type == kind] for kind in ("worker", "replica")}
    # Two workers for the teacher, and two for the only student.
    assert len(by_type["worker"]) == 4
    assert all(line.used and line.used <= line.quantity for line in by_type["worker"])
    answered = {line.detail: line.requests for line in by_type["replica"] if line.requests > 1}
    assert answered == {"tiny": 60, "tiny-teacher": 20}
    timed = [line.detail for line in usage if line.detail.startswith("time ")]
    assert sorted(timed) == sorted(
        f"time {candidate.recipe.label}" for candidate in finished.run.candidates()
    )


def test_the_bundle_opens_and_answers_by_itself(finished: Finished, intent_test_csv: Path) -> None:
    bundle = open_bundle(finished.folder / "bundle")
    assert bundle.manifest.candidate["recipe_hash"] == finished.summary["choice"]["recipe_hash"]
    engine = open_engine(bundle.manifest.engine, bundle.model_folder, bundle.manifest.precision)
    rows = [line.rsplit(",", 1) for line in intent_test_csv.read_text(encoding="utf-8").splitlines()[1:]]
    answers = Predictor(bundle.load_task(), engine).predict([text for text, _ in rows])
    right = [answer["label"] == label for answer, (_, label) in zip(answers, rows, strict=True)]
    assert sum(right) / len(right) == pytest.approx(finished.summary["choice"]["metric"])


def test_a_finished_run_does_nothing_again(finished: Finished) -> None:
    assert finished.again.returncode == 0, finished.again.stderr
    assert "nothing to do" in finished.again.stderr
    # All but the clock of the node, which ran for the second look too, and what is kept meanwhile.
    first, again = finished.summary, json.loads(finished.again.stdout)
    for grown in ("elapsed_s", "ledger_usd"):
        assert again.pop(grown) >= first.pop(grown)
    assert again.pop("ledger")["reconciles"]
    assert first.pop("ledger")["reconciles"]
    for grouping, grown in (
        ("ledger_usd_by_component", {"pipeline", "storage"}),
        ("ledger_usd_by_class", {"idle", "workload"}),
        ("ledger_usd_by_term", {"compute", "storage"}),
    ):
        was, now = first.pop(grouping), again.pop(grouping)
        assert {key for key in now if now[key] != was[key]} <= grown
    assert again == first
    before, after = finished.files, finished.files_again
    assert {name: content for name, (_, content) in before.items()} == {
        name: content for name, (_, content) in after.items()
    }
    # The report on the data is put again, the same; nothing else is even touched.
    assert {name for name in before if before[name] != after[name]} <= {"data.json"}


def test_show_tells_the_same(finished: Finished, runs: Any) -> None:
    found = runs.call("show", str(finished.folder), "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout) == json.loads(finished.again.stdout)
    table = runs.call("show", str(finished.folder), COLUMNS="160")
    assert (table.returncode, table.stderr) == (0, "")
    for candidate in finished.run.candidates():
        assert candidate.recipe.label in table.stdout
    for part in ("choice", "teacher", "$/1k", "this run took"):
        assert part in table.stdout


def test_serve_answers_with_a_label_of_the_data_until_it_is_stopped(
    finished: Finished, runs: Any, intent_test_csv: Path
) -> None:
    lines = intent_test_csv.read_text(encoding="utf-8").splitlines()[1:]
    text, labels = lines[0].rsplit(",", 1)[0], {line.rsplit(",", 1)[1] for line in lines}
    port = free_port()
    process = runs.start("serve", str(finished.folder), "--port", str(port))
    try:
        answer = _ask(f"http://127.0.0.1:{port}/v1/predict", {"inputs": text}, process)
        assert answer["predictions"][0]["label"] in labels
        assert _metrics_page(finished.values["serving"]["metrics_port"])
        # As a supervisor does: the signal reaches the command alone.
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            runs.kill(process)
    assert process.returncode == 130
    assert errors.startswith("equipoise: ")
    assert errors.count("\n") == 1
    assert f":{port}" in output
    assert runs.wait_until_none_is_left() == []
    contents = {name: content for name, (_, content) in runs.records(finished.folder).items()}
    assert contents == {name: content for name, (_, content) in finished.files.items()}


def _ask(url: str, body: dict[str, Any], process: subprocess.Popen[str]) -> dict[str, Any]:
    """The endpoint's answer, once it is up."""
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"it ended early: {process.communicate()}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                found: dict[str, Any] = json.load(response)
                return found
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    pytest.fail("it never answered")


def _metrics_page(port: int) -> str:
    """The cost exporter's page, once it is up."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
                page: str = response.read().decode()
                return page
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    pytest.fail("the exporter never answered")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"constraints": {"max_drop": 0.4}}, "constraints.max_drop"),
        ({"training": {"epochs": 9}}, "training.epochs"),
        ({"serving": {"replicas": 2}}, "serving.replicas"),
    ],
    ids=["constraints", "training", "serving"],
)
def test_a_finished_folder_keeps_its_config(
    finished: Finished, runs: Any, change: dict[str, dict[str, Any]], key: str
) -> None:
    values = {**finished.values, **{name: {**finished.values[name], **part} for name, part in change.items()}}
    found = runs.call(
        "run", "-f", str(runs.write("other.yaml", values)), "--out", str(finished.folder), "--json"
    )
    assert (found.returncode, found.stdout) == (2, "")
    last = found.stderr.splitlines()[-1]
    assert f"{key} differs" in last
    assert str(finished.folder) in last
    assert "--out" in last
    assert "Traceback" not in found.stderr
    assert runs.records(finished.folder)["config.json"] == finished.files["config.json"]
