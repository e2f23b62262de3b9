"""The sampler against random search, replayed over a stored table of recipes that were really measured.

`equipoise run -f benchmarks/measured_recipes.yaml --until search` measures a whole space;
`python -m benchmarks.replay runs/measured-recipes` writes the table from it, or from another finished search;
`benchmarks.frontier` replays it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.record import REPOSITORY

from equipoise import storage
from equipoise.config.search import ConstraintsConfig, SearchConfig
from equipoise.runs import Candidate, RunFolder
from equipoise.search.hypervolume import hypervolume, positions, reference_point
from equipoise.search.limits import Limits, in_order
from equipoise.search.plan import Plan
from equipoise.search.space import Space

TABLE = REPOSITORY / "benchmarks" / "measured_recipes.json"
SEEDS = 20
SHARE = 0.95
"""Of the whole table's hypervolume, to be reached."""

_PROPOSALS = 50
"""Proposals allowed for each recipe: a sampler proposes some again."""


def main() -> None:
    """Write the table from the run folder that is given, and print its path."""
    run = RunFolder(sys.argv[1])
    storage.put_json(str(TABLE), make_table(run))
    print(TABLE)


def make_table(run: RunFolder) -> dict[str, Any]:
    """The run's search config, the depth of its teacher, and its candidates in full."""
    candidates = in_order(run.candidates())
    teacher = next(candidate for candidate in candidates if candidate.is_teacher)
    config = run.read("config.json")
    return {
        "search": config["search"],
        "constraints": config["constraints"],
        "teacher_depth": teacher.recipe.depth,
        "candidates": [candidate.model_dump(mode="json") for candidate in candidates],
    }


class Replay:
    """A search whose measurements are looked up."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.search = SearchConfig.model_validate(table["search"])
        self.constraints = ConstraintsConfig.model_validate(table["constraints"])
        self.space = Space(self.search, table["teacher_depth"])
        every = [Candidate.model_validate(record) for record in table["candidates"]]
        self.measured = {candidate.recipe: candidate for candidate in every}
        teacher = next(candidate for candidate in every if candidate.is_teacher)
        self.reference = reference_point(teacher, self.search.objectives)
        self.whole = self.volume(every)

    def volume(self, candidates: list[Candidate]) -> float:
        """Hypervolume of the eligible ones."""
        eligible = [candidate for candidate in candidates if candidate.eligible]
        return hypervolume(positions(eligible, self.search.objectives), self.reference) if eligible else 0.0

    def trials_of_search(self, seed: int) -> int:
        """Different recipes that the search measures until it has the wanted share of the hypervolume."""
        return self._count(self._proposed(seed))

    def trials_of_random(self, seed: int) -> int:
        """The same, for recipes drawn at random without replacement."""
        drawn = np.random.default_rng(seed).permutation(len(self.measured))
        every = list(self.measured.values())
        return self._count(every[index] for index in drawn.tolist())

    def _proposed(self, seed: int) -> Iterator[Candidate]:
        from equipoise.search.sampler import build_searcher, report_of

        # The table knows nothing of short recoveries.
        search = self.search.model_copy(update={"short_recovery": 1.0})
        limits = Limits(search, len(self.measured) * _PROPOSALS, frozenset(), None)
        searcher = build_searcher(self.space, Plan(limits, "", anchors=self.space.anchors()), seed)
        for number in range(len(self.measured) * _PROPOSALS):
            point = searcher.suggest(str(number))
            candidate = self.measured.get(self.space.recipe(point))
            if candidate is None:  # A run at random may never have proposed it.
                searcher.on_trial_complete(str(number), error=True)
                continue
            searcher.on_trial_complete(str(number), report_of(candidate, self.search, self.constraints))
            yield candidate

    def _count(self, proposed: Iterator[Candidate]) -> int:
        seen: dict[str, Candidate] = {}
        for candidate in proposed:
            if candidate.recipe_hash in seen:
                continue
            seen[candidate.recipe_hash] = candidate
            if self.volume(list(seen.values())) >= SHARE * self.whole:
                break
        return len(seen)


def median_trials(table: dict[str, Any], seeds: int = SEEDS) -> tuple[float, float]:
    """Median trials of the search and of random search until either has its share."""
    replay = Replay(table)
    searched = statistics.median(replay.trials_of_search(seed) for seed in range(seeds))
    drawn = statistics.median(replay.trials_of_random(seed) for seed in range(seeds))
    return searched, drawn


def read_table(file: Path = TABLE) -> dict[str, Any] | None:
    """The stored table; None where none is."""
    return storage.read_json(str(file)) if file.is_file() else None


if __name__ == "__main__":
    main()
