from __future__ import annotations

from pathlib import Path

from benchmarks.frontier import choose_s, frontier_s, random_rows, undominated_rows
from benchmarks.synthetic_run import write_synthetic_run

from equipoise.pipeline.decision import decide
from equipoise.search.frontier import pareto_mask


def test_a_synthetic_run_is_one_that_choose_answers_from(tmp_path: Path) -> None:
    run = write_synthetic_run(tmp_path / "run", 40)
    candidates = run.candidates()
    assert len({candidate.recipe_hash for candidate in candidates}) == 40
    assert sum(candidate.is_teacher for candidate in candidates) == 1
    assert decide(run, {"max_drop": 0.05, "p99_ms": 60.0}, 500)["feasible"] is True


def test_the_command_is_timed_as_a_process_of_its_own() -> None:
    assert 0.05 < choose_s(candidates=10, runs=1) < 30


def test_the_rows_are_what_their_names_say() -> None:
    assert not pareto_mask(random_rows(2_000)).all()
    assert pareto_mask(undominated_rows(2_000)).all()
    assert frontier_s(random_rows(100), runs=1) >= 0
