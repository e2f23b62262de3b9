"""One run stopped in every way: Ctrl-C twice, SIGKILL, constraints that nothing meets; then it ends well."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from equipoise.costs.ledger import read_ledger
from equipoise.ray_runtime import free_port
from equipoise.runs import Candidate, RunFolder

# The whole story takes two to three minutes, in the setup of the first test.
pytestmark = pytest.mark.timeout(900)

TRIALS = 4
IMPOSSIBLE_MB = 0.001


@dataclass
class Story:
    """What was seen of one run folder, try by try."""

    folder: Path
    tries: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, dict[str, tuple[int, bytes]]] = field(default_factory=dict)

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)

    def record(self, after: str, name: str) -> Any:
        """A record as it stood after a try."""
        return json.loads(self.files[after][name][1])

    def candidates(self, after: str) -> set[str]:
        """Names of the candidates' files after a try."""
        return {name for name in self.files[after] if name.startswith("candidates/")}


@pytest.fixture(scope="module")
def story(runs: Any, tiny_run: Callable[..., dict[str, Any]]) -> Story:
    """Ctrl-C in the training and in the search, SIGKILL in the search, impossible constraints, the end."""
    loose = tiny_run(search={"trials": TRIALS}, serving={"port": free_port()})
    tight = {**loose, "constraints": {**loose["constraints"], "max_mb": IMPOSSIBLE_MB}}
    found = Story(folder=runs.folder / "run")
    impossible, possible = runs.write("tight.yaml", tight), runs.write("loose.yaml", loose)
    arguments = ("run", "-f", str(impossible), "--out", str(found.folder), "--json")

    process = runs.start(*arguments)
    seen = _read_until("fine-tuning the teacher", process)
    _press_ctrl_c(process)
    _finish(found, runs, "ctrl-c in training", process, seen)

    process = runs.start(*arguments)
    seen = _read_until("2/6 teacher", process)
    found.tries["second process"] = runs.call(*arguments)
    _wait_for_candidates(found.folder, 1, process)
    _press_ctrl_c(process)
    _finish(found, runs, "ctrl-c", process, seen)

    process = runs.start(*arguments)
    _wait_for_candidates(found.folder, 2, process)
    runs.kill(process)
    _finish(found, runs, "killed", process)

    for name, config in (("infeasible", impossible), ("loosened", possible)):
        found.tries[name] = runs.call("run", "-f", str(config), "--out", str(found.folder), "--json")
        found.left[name] = runs.wait_until_none_is_left()
        found.files[name] = runs.records(found.folder)
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
    story.files[name] = runs.records(story.folder)


@pytest.mark.parametrize("name", ["ctrl-c in training", "ctrl-c"])
def test_ctrl_c_is_status_130_and_one_line(story: Story, name: str) -> None:
    found = story.tries[name]
    assert found.returncode == 130
    assert found.stdout == ""
    said = [line for line in found.stderr.splitlines() if line.startswith("equipoise: ")]
    assert said == found.stderr.splitlines()[-1:]
    assert "interrupted" in said[0]
    assert "continues" in said[0]
    assert "Traceback" not in found.stderr


def test_figures_of_the_training_are_told_without_a_terminal(story: Story) -> None:
    assert "rows per s" in story.tries["ctrl-c in training"].stderr


def test_every_try_takes_its_ray_with_it(story: Story) -> None:
    assert not any(story.left.values())
    assert len(story.left) == 5


def test_a_second_process_in_the_folder_is_refused_and_disturbs_nothing(story: Story) -> None:
    found = story.tries["second process"]
    assert (found.returncode, found.stdout) == (2, "")
    last = found.stderr.splitlines()[-1]
    assert "another process runs in this folder" in last
    assert str(story.folder) in last
    assert "--out" in last
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("after", ["ctrl-c", "killed"])
def test_an_interrupted_search_leaves_whole_records_only(story: Story, after: str) -> None:
    candidates = story.candidates(after)
    assert 1 <= len(candidates) < TRIALS
    for name in candidates:
        Candidate.model_validate(story.record(after, name))
    assert not {"frontier.json", "choice.json", "test.json", "report.html"} & story.files[after].keys()


def test_what_was_trained_and_measured_is_not_done_again(story: Story) -> None:
    assert story.candidates("ctrl-c") < story.candidates("killed") < story.candidates("infeasible")
    for before, later in (("ctrl-c", "killed"), ("killed", "infeasible"), ("infeasible", "loosened")):
        for name, held in story.files[before].items():
            if name.endswith("trained.json"):
                assert story.files[later][name] == held
            elif name.startswith("candidates/"):
                was, now = story.record(before, name), story.record(later, name)
                # The choice stage prices the search into each record; nothing else may move.
                del was["cost"], now["cost"]
                assert was == now
    for name in story.candidates("ctrl-c"):
        assert story.files["killed"][name] == story.files["ctrl-c"][name]


def test_the_choice_is_charged_with_what_killed_tries_took(story: Story) -> None:
    lines = [line for line in read_ledger(story.run) if line.kind == "usage"]
    for candidate in story.run.candidates():
        for component in ("training",) if candidate.is_teacher else ("training", "search"):
            billed = math.fsum(line.billed_cost_usd for line in lines if line.component == component)
            assert getattr(candidate.cost, f"compute_{component}_usd") == pytest.approx(billed), component


def test_no_recipe_is_measured_twice(story: Story) -> None:
    timed = [
        line.detail
        for line in read_ledger(story.run)
        # A timing that was cut short is billed too, as overhead.
        if line.detail.startswith("time ") and line.charge_class == "workload"
    ]
    candidates = story.run.candidates()
    assert len(candidates) == TRIALS
    assert Counter(timed) == {f"time {candidate.recipe.label}": 1 for candidate in candidates}


def test_constraints_that_nothing_meets_are_status_3_with_the_nearest(story: Story) -> None:
    found = story.tries["infeasible"]
    assert (found.returncode, found.stdout) == (3, "")
    last = found.stderr.splitlines()[-1]
    assert "constraints.max_mb" in last
    assert f"max_mb = {IMPOSSIBLE_MB:g} binds" in last
    smallest = min(
        (candidate for candidate in story.run.candidates() if candidate.eligible), key=lambda c: c.bytes
    )
    assert smallest.recipe_hash in last
    assert f"{smallest.bytes / 1e6:.4g}" in last
    assert "Traceback" not in found.stderr


def test_even_then_the_frontier_and_the_report_are_written(story: Story) -> None:
    files = story.files["infeasible"]
    choice, frontier = (story.record("infeasible", name) for name in ("choice.json", "frontier.json"))
    assert choice["feasible"] is False
    assert "max_mb" in choice["reason"]
    assert frontier["members"]
    assert b"max_mb" in files["report.html"][1]
    assert not {"test.json", "served.json"} & files.keys()


def test_looser_constraints_finish_the_same_run(story: Story) -> None:
    found = story.tries["loosened"]
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    assert story.record("loosened", "config.json")["constraints"]["max_mb"] is None
    assert story.record("loosened", "choice.json")["feasible"] is True
    summary = json.loads(found.stdout)
    assert summary["candidates"] == TRIALS
    assert summary["served"]["agreement"] >= 0.999
