"""A search on a real local Ray that runs out of dollars, is given more, and ends when nothing is gained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.ray_runtime import free_port
from equipoise.runs import RunFolder
from equipoise.search.limits import spent_usd

# The three tries take about a minute and a half, in the setup of the first test.
# Each of its stories is a search of minutes.
pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

CENT = 0.01


@pytest.fixture(scope="module")
def hasty(runs: Any, tiny_run: Callable[..., dict[str, Any]]) -> tuple[Any, RunFolder]:
    """A latency objective that no model meets."""
    folder = RunFolder(runs.folder / "hasty")
    config = tiny_run(search={"trials": 6}, constraints={"p99_ms": 1e-4}, serving={"port": free_port()})
    file = runs.write("hasty.yaml", config)
    return runs.call("run", "-f", str(file), "--out", folder.location, "--json"), folder


def test_what_cannot_be_fast_enough_is_never_distilled(hasty: tuple[Any, RunFolder]) -> None:
    found, run = hasty
    assert found.returncode == 3, found.stderr
    assert "constraints.p99_ms" in found.stderr.splitlines()[-1]
    assert not list(run.local().glob("students/*/trained.json"))
    assert {candidate.recipe.distilled for candidate in run.candidates()} == {False}
    # One structure is a student; each of its three runtimes was timed once, untrained.
    timed = sorted(run.local().glob("screened/*.json"))
    assert len(timed) == 3
    assert found.stderr.count("not distilled, p99") == 3
    assert not list(run.local().glob("screened/models/*"))


@pytest.fixture(scope="module")
def tries(runs: Any, tiny_run: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Too few dollars, more dollars, then a window that gains too little."""
    folder: Path = runs.folder / "run"
    found: dict[str, Any] = {"folder": folder}
    searches = {
        "poor": {"trials": 6, "max_usd": 1e-7},
        "richer": {"trials": 6, "max_usd": CENT, "window": 1, "min_gain": 0.99},
    }
    for name, search in searches.items():
        config = runs.write(f"{name}.yaml", tiny_run(search=search, serving={"port": free_port()}))
        found[name] = runs.call("run", "-f", str(config), "--out", str(folder), "--json")
        found[f"{name} left"] = runs.wait_until_none_is_left()
        found[f"{name} candidates"] = {c.recipe_hash: c.measured_at for c in RunFolder(folder).candidates()}
        found[f"{name} files"] = {path.name for path in folder.iterdir()}
    return found


def test_dollars_that_are_spent_end_the_search_with_status_4(tries: dict[str, Any]) -> None:
    poor = tries["poor"]
    assert poor.returncode == 4, poor.stderr
    assert poor.stderr.splitlines()[-1].startswith("equipoise: search.max_usd: the search has spent $")
    assert "after 1 of 6 candidates" in poor.stderr
    assert "Traceback" not in poor.stderr
    assert tries["poor left"] == []
    assert len(tries["poor candidates"]) == 1


def test_what_was_measured_by_then_can_be_looked_at(tries: dict[str, Any]) -> None:
    assert "report.html" in tries["poor files"]
    assert not {"choice.json", "bundle", "test.json"} & tries["poor files"]


def test_with_more_dollars_it_goes_on_and_repeats_nothing(tries: dict[str, Any]) -> None:
    richer = tries["richer"]
    assert richer.returncode == 0, richer.stderr
    before, after = tries["poor candidates"], tries["richer candidates"]
    assert before.items() <= after.items()
    assert spent_usd(RunFolder(tries["folder"])) < CENT


def test_a_window_that_gains_too_little_ends_the_search_before_its_trials(tries: dict[str, Any]) -> None:
    # Of six recipes three are anchors, one is the window; the fourth may still have doubled what there was.
    assert "its last trials gained next to no hypervolume" in tries["richer"].stderr
    assert len(tries["richer candidates"]) in (4, 5)
