from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise.cli.show import print_summary
from equipoise.config import RunConfig
from equipoise.runs import Candidate, RunFolder


@pytest.fixture
def run(tmp_path: Path, run_config: Callable[..., RunConfig]) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.claim(run_config().model_dump(mode="json"))
    return folder


def test_a_run_without_candidates_has_no_table(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(run, as_json=False)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "no candidate is measured yet"
    assert lines[-1] == "no node was metered yet"


def test_a_run_of_one_candidate_shows_it(
    run: RunFolder, build_candidate: Callable[..., Candidate], capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = build_candidate()
    run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    print_summary(run, as_json=False)

    told = capsys.readouterr().out
    assert told.startswith(f"Candidates on validation; $/1k requests at {candidate.cost.rps:g} requests/s")
    assert candidate.recipe.label in told
    assert "1 candidates over 1 structures and 1 engines" in told
