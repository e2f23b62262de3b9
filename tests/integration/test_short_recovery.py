"""Short recoveries on a real local Ray, which is killed with its driver; then the search is run again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from equipoise.compression.structure import recipe_hash
from equipoise.runs import Candidate, RunFolder
from equipoise.search.frontier import frontier
from equipoise.search.recovery import in_full, is_short

# Two tries of a search, in the setup of the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

DRIVER = Path(__file__).with_name("search_driver.py")
RECIPES = 9
END_S = 700


def start(config: Path, folder: Path) -> subprocess.Popen[str]:
    with (folder.parent / "driver.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(DRIVER), str(config), str(folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        )


def records(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = [*folder.glob("candidates/*.json"), *folder.glob("students/*/trained.json")]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory, runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Killed once a short recovery is on record, GCS, raylet, workers and driver at once; run to its end."""
    folder = tmp_path_factory.mktemp("search") / "run"
    config = runs.write(
        "short.yaml",
        tiny_run(
            search={"trials": RECIPES, "layers": ["first", "last"], "short_recovery": 0.25},
            training={"workers": 1},
        ),
    )
    driver = start(config, folder)
    deadline = time.monotonic() + END_S
    while not any(candidate.recipe.recovery < 1 for candidate in RunFolder(folder).candidates()):
        assert driver.poll() is None, (folder.parent / "driver.log").read_text()[-3000:]
        assert time.monotonic() < deadline, "no short recovery"
        time.sleep(0.1)
    everything = [*psutil.Process(driver.pid).children(recursive=True), driver]
    assert {"raylet", "gcs_server"} <= {process.name() for process in everything[:-1]}
    for process in everything:
        process.kill()
    driver.wait(timeout=30)
    found: dict[str, Any] = {"run": RunFolder(folder), "killed": records(folder)}
    driver = start(config, folder)
    try:
        found["status"] = driver.wait(timeout=END_S)
    finally:
        driver.kill()
    found["log"] = (folder.parent / "driver.log").read_text()
    found["candidates"] = RunFolder(folder).candidates()
    return found


def test_every_recipe_is_measured_and_nothing_that_was_finished_is_lost_or_repeated(
    story: dict[str, Any],
) -> None:
    assert story["status"] == 0, story["log"][-3000:]
    candidates: list[Candidate] = story["candidates"]
    assert len({recipe_hash(in_full(candidate.recipe)) for candidate in candidates}) == RECIPES
    after = records(story["run"].local())
    assert {name: after.get(name) for name in story["killed"]} == story["killed"]


def test_students_are_recovered_shortly_and_the_promising_in_full(story: dict[str, Any]) -> None:
    candidates: list[Candidate] = story["candidates"]
    shorts = [candidate for candidate in candidates if candidate.recipe.recovery < 1]
    whole = [candidate for candidate in candidates if candidate.recipe.recovery == 1]
    assert all(candidate.recipe.distilled and not candidate.eligible for candidate in shorts)
    assert any(is_short(candidate) for candidate in shorts)
    promoted = [candidate for candidate in whole if candidate.recipe.distilled]
    assert promoted
    # One of two structures: halving them all would have saved nothing.
    assert len({candidate.recipe.layers for candidate in promoted}) == 1
    run: RunFolder = story["run"]
    steps = {
        path.parent.name: run.read("students", path.parent.name, "trained.json")["loop_s"]
        for path in run.local().glob("students/*/trained.json")
    }
    assert {name.endswith("recovery-0.25") for name in steps} == {True, False}


def test_a_short_recovery_is_never_on_the_frontier(story: dict[str, Any]) -> None:
    members = frontier(story["candidates"], ("metric", "latency_p99_ms"))
    assert members
    assert {member.recipe.recovery for member in members} == {1.0}
