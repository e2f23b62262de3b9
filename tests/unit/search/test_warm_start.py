from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise.errors import ConfigError
from equipoise.runs import Candidate, RunFolder
from equipoise.search.warm_start import earlier_recipes

Build = Callable[..., Candidate]
HERE = {"fingerprint": "here"}


@pytest.fixture
def earlier(tmp_path: Path, build_candidate: Build) -> RunFolder:
    run = RunFolder(tmp_path / "earlier")
    run.put({"task": "text_classification"}, "config.json")
    candidates = {
        "teacher": build_candidate(hardware=HERE),
        "choice": build_candidate((0, 5), "openvino", "int8", hardware=HERE),
        "member": build_candidate((0,), "openvino", "int8", hardware=HERE),
        "dominated": build_candidate((0, 1), hardware=HERE),
        "rejected": build_candidate((0, 1), "onnxruntime", hardware=HERE, rejection="depends"),
        "elsewhere": build_candidate((0, 2), hardware={"fingerprint": "other"}),
    }
    for candidate in candidates.values():
        run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    names = {name: candidate.recipe_hash for name, candidate in candidates.items()}
    members = [names[name] for name in ("member", "choice", "rejected", "elsewhere", "teacher")]
    run.put({"members": members}, "frontier.json")
    run.put({"recipe_hash": names["choice"]}, "choice.json")
    return run


def find(*locations: str, task: str = "text_classification", fingerprint: str = "here") -> list[str]:
    return [recipe.label for recipe in earlier_recipes(locations, task=task, fingerprint=fingerprint)]


def test_the_choice_comes_first_then_the_frontier_of_this_hardware(earlier: RunFolder) -> None:
    labels = ["2 layers (0,5) int8 openvino", "1 layer (0) int8 openvino", "6 layers (0-5) fp32 torch"]
    assert find(earlier.location) == labels
    assert find(earlier.location, earlier.location) == labels
    assert find() == []


def test_a_run_that_did_not_get_that_far_gives_nothing(earlier: RunFolder) -> None:
    for name in ("frontier.json", "choice.json"):
        earlier.local(name).unlink()
    assert find(earlier.location) == []


def test_other_tasks_other_hardware_and_no_runs_are_refused(earlier: RunFolder, tmp_path: Path) -> None:
    for change, message in (
        ({"task": "token_classification"}, "is a run of text_classification, not of token_classification"),
        ({"fingerprint": "new"}, r"was measured on other hardware \(.+, this run times on new\)"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            find(earlier.location, **change)
        assert caught.value.where == "search.warm_start"
    with pytest.raises(ConfigError, match="is no run folder"):
        find(str(tmp_path))
