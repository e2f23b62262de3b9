from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest
from benchmarks.record import Measured, Provenance, checkout_revision, measured_here_and_now, write_result

from equipoise import __version__

PROVENANCE = Provenance({"cpu": "a", "cores": 2, "memory_gib": 8.0}, "2026-01-02T03:04:05+00:00", "0.1.0+abc")


@pytest.mark.parametrize(
    ("value", "better", "met"),
    [
        (1.0, "higher", True),
        (1.1, "higher", True),
        (0.9, "higher", False),
        (1.0, "lower", True),
        (0.9, "lower", True),
        (1.1, "lower", False),
        (float("nan"), "higher", False),
        (float("nan"), "lower", False),
    ],
)
def test_a_goal_is_met_on_its_better_side(
    value: float, better: Literal["higher", "lower"], met: bool
) -> None:
    assert Measured("figure", value, 1.0, better).met is met


def test_the_ratio_is_the_value_as_a_multiple_of_the_goal() -> None:
    assert Measured("figure", 3.0, 12, "higher").ratio == 0.25
    assert Measured("figure", 0.0, 0, "lower").ratio is None


def test_a_result_file_has_the_documented_keys(tmp_path: Path) -> None:
    file = write_result("x", "python -m x", [Measured("figure", 2, 1, "higher")], PROVENANCE, tmp_path)
    assert file == tmp_path / "x.json"
    assert json.loads(file.read_text()) == {
        "machine": {"cpu": "a", "cores": 2, "memory_gib": 8.0},
        "date": "2026-01-02T03:04:05+00:00",
        "revision": "0.1.0+abc",
        "command": "python -m x",
        "figures": [{"name": "figure", "value": 2, "goal": 1, "better": "higher"}],
    }


def test_a_new_result_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for value in (1, 2):
        write_result("x", "", [Measured("figure", value, 1, "higher")], PROVENANCE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert json.loads((tmp_path / "x.json").read_text())["figures"][0]["value"] == 2


def test_provenance_names_this_machine_and_this_checkout() -> None:
    found = measured_here_and_now()
    assert found.machine["cores"] >= 1
    assert found.date.endswith("+00:00")
    assert found.revision.startswith(__version__)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_is_a_commit(repository: Path) -> None:
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    commit = checkout_revision().removeprefix(f"{__version__}+").removesuffix("-dirty")
    assert len(commit) >= 7
    assert set(commit) <= set("0123456789abcdef")
