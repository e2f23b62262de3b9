"""What is decided from records; the timing itself runs in tests/integration/test_search.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RaySystemError

from equipoise.compression.structure import recipe_hash, structure_key
from equipoise.config import RunConfig
from equipoise.runs import Candidate, Recipe, RunFolder
from equipoise.search.context import TrialContext
from equipoise.search.screening import screen_recipe

STUDENT = Recipe(depth=2, layers=(0, 5), distilled=True, engine="openvino", precision="int8")
Screen = Callable[[Recipe, float | None], Any]


@pytest.fixture
def run(tmp_path: Path, build_candidate: Callable[..., Candidate]) -> RunFolder:
    """A run in which the student was timed, untrained: p99 8 ms, 95% from 7.995 ms."""
    folder = RunFolder(tmp_path / "run")
    speed = build_candidate(p99_ms=8).speed
    record = {"recipe": STUDENT.model_dump(), "speed": speed.model_dump()}
    folder.put(record, "screened", f"{recipe_hash(STUDENT)}.json")
    return folder


@pytest.fixture
def screen(run: RunFolder, run_config: Callable[..., RunConfig]) -> Screen:
    """`screen(recipe, p99_ms)` without a Ray: a timing that is not on record would fail."""

    def call(recipe: Recipe, p99_ms: float | None) -> Any:
        known = {"config": run_config(constraints={"p99_ms": p99_ms}), "folder": run.location}
        rest = {field.name: None for field in fields(TrialContext) if field.name not in known}
        return screen_recipe(TrialContext(**known, **rest), None, recipe)

    return call


def test_what_is_too_slow_with_its_whole_interval_is_not_distilled(screen: Screen) -> None:
    assert screen(STUDENT, 7.9).latency_p99_ms.value == 8
    assert screen(STUDENT, 7.995) is None
    assert screen(STUDENT, 20) is None


def test_without_an_objective_and_for_the_teachers_structure_nothing_is_timed(screen: Screen) -> None:
    whole = Recipe(depth=6, layers=tuple(range(6)), distilled=False, engine="torch", precision="fp32")
    other = STUDENT.model_copy(update={"precision": "fp32"})
    assert screen(other, None) is None
    assert screen(whole, 1e-6) is None


def test_what_is_distilled_or_measured_already_is_not_timed_again(
    screen: Screen, run: RunFolder, build_candidate: Callable[..., Candidate]
) -> None:
    run.put(build_candidate((0, 5)).model_dump(mode="json"), "candidates", f"{recipe_hash(STUDENT)}.json")
    assert screen(STUDENT, 1e-6) is None
    run.put({"seconds": 1.0}, "students", structure_key(STUDENT), "trained.json")
    assert screen(STUDENT.model_copy(update={"precision": "fp32"}), 1e-6) is None


@pytest.mark.parametrize(
    ("engine", "precision", "p99_ms", "timed"),
    [
        ("openvino", "int8", 10, False),
        ("openvino", "int8", 12.001, True),  # The interval of the teacher's p99 reaches beyond the objective.
        ("openvino", "bf16", 10, True),
        ("onnxruntime", "int8", 10, True),
    ],
)
def test_a_part_is_not_timed_where_the_whole_is_fast_enough(
    screen: Screen,
    run: RunFolder,
    build_candidate: Callable[..., Candidate],
    engine: str,
    precision: str,
    p99_ms: float,
    timed: bool,
) -> None:
    whole = build_candidate(engine=engine, precision=precision, p99_ms=p99_ms)
    run.put(whole.model_dump(mode="json"), "candidates", f"{whole.recipe_hash}.json")
    other = STUDENT.model_copy(update={"layers": (0, 1)})
    if timed:
        with pytest.raises(RaySystemError):  # There is no Ray here to time it on.
            screen(other, 12)
    else:
        assert screen(other, 12) is None
