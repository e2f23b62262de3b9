"""One run on a user's own CSV: interrupted three times, then under impossible constraints, then to the end."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.bundle import open_bundle
from equipoise.costs.ledger import read_ledger
from equipoise.engines import Predictor, open_engine
from equipoise.ray_runtime import free_port
from equipoise.runs import Candidate, RunFolder

# The whole story takes one to three minutes, in the setup of the first test.
pytestmark = pytest.mark.timeout(900)

TRIALS = 4
IMPOSSIBLE_MS = 0.0001


@dataclass
class Story:
    """What was seen of one run folder, try by try."""

    folder: Path
    config: Path
    impossible: Path
    finished_before: dict[str, list[str]] = field(default_factory=dict)
    tries: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, tuple[int, bytes]]] = field(default_factory=dict)

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)

    @property
    def summary(self) -> dict[str, Any]:
        """What the try that finished printed."""
        found: dict[str, Any] = json.loads(self.tries["finished"].stdout)
        return found

    def note(self, name: str) -> None:
        """Keep what the folder holds now: time and bytes of each record."""
        self.files[name] = {
            str(path.relative_to(self.folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for pattern in ("*.json", "candidates/*.json", "students/*/trained.json", "teacher/trained.json")
            for path in self.folder.glob(pattern)
        }


@pytest.fixture(scope="module")
def story(runs: Any, tiny_run: Callable[..., dict[str, Any]]) -> Story:
    """Ctrl-C in the training and in the search; SIGKILL in the search; impossible constraints; the end; again."""
    values = tiny_run(search={"trials": TRIALS}, serving={"port": free_port()})
    found = Story(
        folder=runs.folder / "run",
        config=runs.write("run.yaml", values),
        impossible=runs.write(
            "impossible.yaml", {**values, "constraints": {"max_drop": 0.5, "p99_ms": IMPOSSIBLE_MS}}
        ),
    )

    arguments = ("run", "-f", str(found.impossible), "--out", str(found.folder), "--json")

    process = runs.start(*arguments)
    seen = _read_until("fine-tuning the teacher", process)
    _press_ctrl_c(process)
    _finish(found, runs, "ctrl-c in training", process, seen)

    process = runs.start(*arguments)
    _wait_for_candidates(found.folder, 1, process)
    _press_ctrl_c(process)
    _finish(found, runs, "ctrl-c", process)

    process = runs.start(*arguments)
    _wait_for_candidates(found.folder, 2, process)
    runs.kill(process)
    _finish(found, runs, "killed", process)

    for name, config in (("infeasible", found.impossible), ("finished", found.config), ("again", found.config)):
        found.tries[name] = runs.call("run", "-f", str(config), "--out", str(found.folder), "--json")
        found.left[name] = runs.wait_until_none_is_left()
        found.note(name)
        if (found.folder / "choice.json").is_file():
            found.records[name] = found.run.read("choice.json")
    return found


def _press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """What a terminal does: every process of the foreground group gets the signal."""
    os.killpg(process.pid, signal.SIGINT)


def _read_until(text: str, process: subprocess.Popen[str]) -> str:
    """What stands on standard error up to the line with the text."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"the command ended early: {seen}")


def _wait_for_candidates(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many are on record, and the next is under way."""
    deadline = time.monotonic() + 240
    while len(list((folder / "candidates").glob("*.json"))) < count:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the search did not get that far: {process.communicate()}")
        time.sleep(0.05)
    time.sleep(0.3)


def _finish(story: Story, runs: Any, name: str, process: subprocess.Popen[str], seen: str = "") -> None:
    output, errors = process.communicate(timeout=90)
    story.tries[name] = subprocess.CompletedProcess(process.args, process.returncode, output, seen + errors)
    story.left[name] = runs.wait_until_none_is_left()
    runs.clean()
    story.note(name)


@pytest.mark.parametrize("name", ["ctrl-c in training", "ctrl-c"])
def test_ctrl_c_is_status_130_and_one_line(story: Story, name: str) -> None:
    found = story.tries[name]
    assert found.returncode == 130
    last = found.stderr.splitlines()[-1]
    assert last.startswith("equipoise: ")
    assert "interrupted" in last
    assert "continues" in last
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


def test_progress_is_told_without_a_terminal(story: Story) -> None:
    told = story.tries["infeasible"].stderr
    for part in ("data", "teacher", "search", "choice"):
        assert f"/6 {part}" in told
    assert "timing" in told or "judging" in told or "exporting" in told
    assert "rows per s" in story.tries["ctrl-c in training"].stderr


def test_every_try_takes_its_ray_with_it(story: Story) -> None:
    assert story.left == dict.fromkeys(story.tries, [])


@pytest.mark.parametrize("after", ["ctrl-c", "killed"])
def test_an_interrupted_search_leaves_whole_records_only(story: Story, after: str) -> None:
    candidates = [name for name in story.files[after] if name.startswith("candidates/")]
    assert 1 <= len(candidates) < TRIALS
    for name in candidates:
        Candidate.model_validate_json(story.files[after][name][1])
    assert not {"frontier.json", "choice.json", "test.json"} & story.files[after].keys()


def test_what_was_trained_and_measured_is_not_done_again(story: Story) -> None:
    for before, later in (("ctrl-c", "killed"), ("ctrl-c", "infeasible"), ("killed", "infeasible")):
        for name, (written, content) in story.files[before].items():
            if name.endswith("trained.json"):
                assert story.files[later][name] == (written, content)
            elif name.startswith("candidates/"):
                held, now = (json.loads(story.files[key][name][1]) for key in (before, later))
                # The choice stage prices the search into each record; nothing else may move.
                del held["cost"], now["cost"]
                assert held == now
    for name in story.files["ctrl-c"]:
        if name.startswith("candidates/"):
            assert story.files["killed"][name] == story.files["ctrl-c"][name]


def test_no_recipe_is_measured_twice(story: Story) -> None:
    candidates = {candidate.recipe_hash for candidate in story.run.candidates()}
    assert len(candidates) == TRIALS
    ledger = story.folder / "ledger"
    writers = {path.name.removeprefix("trial-") for path in ledger.glob("trial-*")}
    assert writers == candidates
    assert {writer.name: len(list(writer.iterdir())) for writer in ledger.glob("trial-*")} == {
        f"trial-{name}": 1 for name in candidates
    }
    timings = [line for line in read_ledger(story.run) if line.detail.startswith("time ")]
    assert len(timings) == TRIALS
    assert len({line.detail for line in timings}) == TRIALS


def test_constraints_that_nothing_meets_are_status_3_with_the_nearest(story: Story) -> None:
    found = story.tries["infeasible"]
    assert found.returncode == 3
    last = found.stderr.splitlines()[-1]
    assert "constraints.p99_ms" in last
    assert f"p99_ms = {IMPOSSIBLE_MS:g} binds" in last
    assert any(candidate.recipe_hash in last for candidate in story.run.candidates())
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


def test_even_then_the_frontier_and_the_report_are_written(story: Story) -> None:
    assert story.records["infeasible"]["feasible"] is False
    assert "frontier.json" in story.files["infeasible"]
    assert "test.json" not in story.files["infeasible"]


def test_looser_constraints_finish_the_same_run(story: Story) -> None:
    found = story.tries["finished"]
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    assert story.records["finished"]["feasible"] is True
    assert story.run.read("config.json")["constraints"]["p99_ms"] is None


def test_every_file_of_a_run_is_there(story: Story) -> None:
    for name in (
        "config.json",
        "data.json",
        "teacher/config.json",
        "teacher/model.safetensors",
        "teacher/tokenizer.json",
        "teacher/deepspeed.json",
        "frontier.json",
        "choice.json",
        "bundle/bundle.json",
        "test.json",
        "served.json",
        "report.html",
    ):
        assert (story.folder / name).stat().st_size > 0, name
    assert len(list((story.folder / "candidates").glob("*.json"))) == TRIALS
    assert len(list((story.folder / "ledger").glob("*/*.jsonl"))) > TRIALS
    assert not list(story.folder.rglob(".tmp-*"))


def test_the_summary_is_all_of_standard_output_and_right(story: Story) -> None:
    summary = story.summary
    assert summary["candidates"] == TRIALS
    assert summary["structures"] == 2
    assert summary["engines"] == ["onnxruntime", "torch"]
    assert summary["frontier"] + summary["dominated"] + summary["rejected"] == TRIALS
    choice, test = summary["choice"], story.run.read("test.json")
    low, high = choice["metric_drop_ci"]
    assert low <= choice["metric_drop"] <= high
    assert choice["metric_drop"] == test["drop"]["value"]
    assert choice["metric"] == test["choice"]["metric"]["value"]
    assert choice["cost_ratio"] == pytest.approx(
        choice["serving_usd_per_1k"] / choice["teacher_serving_usd_per_1k"]
    )
    assert choice["total_usd_per_1k"] > choice["serving_usd_per_1k"] > 0
    assert choice["rps"] == 100
    assert summary["ledger_usd"] == pytest.approx(sum(summary["ledger_usd_by_component"].values()))
    assert set(summary["ledger_usd_by_component"]) == {"training", "search", "evaluation", "serving"}
    assert summary["elapsed_s"] > 10


def test_what_is_served_is_what_was_measured(story: Story) -> None:
    served = story.summary["served"]
    assert served["rows"] == 60
    assert served["agreement"] >= 0.999
    assert 0 < served["p50_ms"] <= served["p99_ms"]
    assert served["rps"] > 0
    assert served["usd_per_1k"] == pytest.approx(story.summary["choice"]["serving_usd_per_1k"])
    assert served["teacher"]["rows"] == 20


def test_the_teacher_learned_and_the_test_split_was_read_once(story: Story) -> None:
    test = story.run.read("test.json")
    assert test["rows"] == 60
    assert test["teacher"]["metric"]["value"] > 0.6
    assert test["recipe_hash"] == story.records["finished"]["recipe_hash"]


def test_the_cost_terms_of_every_candidate_add_up(story: Story) -> None:
    lines = read_ledger(story.run)
    searched = math.fsum(line.billed_cost_usd for line in lines if line.component == "search")
    for candidate in story.run.candidates():
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
    assert sum(candidate.is_teacher for candidate in story.run.candidates()) == 1


def test_the_bundle_opens_and_answers_by_itself(story: Story, intent_test_csv: Path) -> None:
    bundle = open_bundle(story.folder / "bundle")
    assert bundle.manifest.candidate["recipe_hash"] == story.records["finished"]["recipe_hash"]
    engine = open_engine(bundle.manifest.engine, bundle.model_folder, bundle.manifest.precision)
    rows = [line.rsplit(",", 1) for line in intent_test_csv.read_text(encoding="utf-8").splitlines()[1:]]
    answers = Predictor(bundle.load_task(), engine).predict([text for text, _ in rows])
    right = [answer["label"] == label for answer, (_, label) in zip(answers, rows, strict=True)]
    assert sum(right) / len(right) == pytest.approx(story.summary["choice"]["metric"])


def test_a_finished_run_does_nothing_again(story: Story) -> None:
    found = story.tries["again"]
    assert found.returncode == 0
    assert "nothing to do" in found.stderr
    assert json.loads(found.stdout)["choice"] == story.summary["choice"]
    before, after = story.files["finished"], story.files["again"]
    assert before.keys() == after.keys()
    assert {name for name in before if before[name][1] != after[name][1]} == set()
    records = {name for name in before if name not in ("data.json", "config.json")}
    assert {name for name in records if before[name] != after[name]} == set()


def test_show_tells_the_same(story: Story, runs: Any) -> None:
    found = runs.call("show", str(story.folder), "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout) == json.loads(story.tries["again"].stdout)
    table = runs.call("show", str(story.folder), COLUMNS="160")
    assert story.summary["choice"]["recipe"] in table.stdout
    assert table.stderr == ""


def test_the_folder_of_another_config_is_refused(story: Story, runs: Any) -> None:
    values = yaml.safe_load(story.config.read_text(encoding="utf-8"))
    values["training"]["epochs"] = 9
    other = runs.write("other.yaml", values)
    found = runs.call("run", "-f", str(other), "--out", str(story.folder))
    assert found.returncode == 2
    last = found.stderr.splitlines()[-1]
    assert "training.epochs differs" in last
    assert str(story.folder) in last
    story.note("other")
    assert story.files["other"]["config.json"] == story.files["again"]["config.json"]


def test_a_folder_in_use_is_refused(story: Story, runs: Any) -> None:
    from filelock import FileLock

    with FileLock(str(story.folder / ".lock")):
        found = runs.call("run", "-f", str(story.config), "--out", str(story.folder))
    assert found.returncode == 2
    last = found.stderr.splitlines()[-1]
    assert "another process runs in this folder" in last
    assert str(story.folder) in last
