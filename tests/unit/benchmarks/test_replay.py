from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.replay import Replay, make_table, median_trials, read_table

from equipoise import storage
from equipoise.config import RunConfig
from equipoise.runs import Candidate, RunFolder
from equipoise.search.space import Space

# Warnings of other packages about each other, at their own import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def run(
    tmp_path: Path, run_config: Callable[..., RunConfig], build_candidate: Callable[..., Candidate]
) -> RunFolder:
    """A folder in which every recipe of a small space stands; a made-up world in which depth costs time."""
    config = run_config(search={"depths": [1, 2, 3], "layers": ["first"], "engines": ["torch", "openvino"]})
    folder = RunFolder(tmp_path / "run")
    folder.claim(config.model_dump(mode="json"))
    space = Space(config.search, 6)
    for structure, runtime in itertools.product(space.structures, space.runtimes):
        recipe = space.recipe({"structure": structure, "runtime": runtime})
        fast = {"fp32": 1.0, "bf16": 1.7, "int8": 2.5}[recipe.precision]
        candidate = build_candidate(
            recipe.layers,
            recipe.engine,
            recipe.precision,
            metric=0.95 - 0.004 * (6 - recipe.depth),
            p99_ms=4 * recipe.depth / fast,
            rps=300 * fast / recipe.depth,
        )
        folder.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    return folder


def test_a_replay_counts_different_recipes_until_the_share_is_reached(run: RunFolder) -> None:
    replay = Replay(make_table(run))
    assert replay.whole > 0
    assert len(replay.measured) == replay.space.size == 20
    for seed in range(3):
        for count in (replay.trials_of_search(seed), replay.trials_of_random(seed)):
            assert 1 <= count <= 20
    assert replay.trials_of_random(1) == replay.trials_of_random(1)
    assert replay.trials_of_search(1) == replay.trials_of_search(1)


def test_the_median_is_over_seeds(run: RunFolder) -> None:
    table = make_table(run)
    replay = Replay(table)
    searched, drawn = median_trials(table, seeds=3)
    assert searched == sorted(replay.trials_of_search(seed) for seed in range(3))[1]
    assert drawn == sorted(replay.trials_of_random(seed) for seed in range(3))[1]


def test_a_table_is_read_back(run: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    assert read_table(file) is None
    storage.put_json(str(file), make_table(run))
    table = read_table(file)
    assert table is not None
    assert Replay(table).measured == Replay(make_table(run)).measured
