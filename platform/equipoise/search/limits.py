"""When a search has done enough: candidates, hypervolume, time or dollars."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from equipoise.compression.structure import recipe_hash
from equipoise.config.search import SearchConfig
from equipoise.costs.ledger import ledger_usd, read_ledger
from equipoise.errors import OverBudgetError
from equipoise.runs import Candidate, RunFolder
from equipoise.search.hypervolume import hypervolume, positions, reference_point
from equipoise.search.recovery import in_full

Reason = Literal["trials", "gain", "time", "budget"]


@dataclass(frozen=True)
class Limits:
    """What ends a search.

    Args:
        wanted: different candidates to measure, those of earlier tries included; the short and the full
            recovery of a recipe are one.
        anchors: hashes of the recipes that are measured whatever they gain, at full recovery; the window
            starts after them.
        deadline_s: on the clock of `time.monotonic`; None is no limit.
    """

    search: SearchConfig
    wanted: int
    anchors: frozenset[str]
    deadline_s: float | None

    def reached(
        self, candidates: Sequence[Candidate], spent_usd: float, dropped: Collection[str] = ()
    ) -> Reason | None:
        """Why no further trial should start; None where one should.

        Args:
            candidates: in the order they were measured.
            spent_usd: dollars of the search so far, over all tries.
            dropped: hashes of recipes that were too slow to be distilled, and are no candidates.
        """
        points = {recipe_hash(in_full(candidate.recipe)) for candidate in candidates}
        if len(points) >= self.wanted:
            return "trials"
        if self.anchors <= points | set(dropped) and self._gains_no_more(candidates):
            return "gain"
        if self.out_of_time():
            return "time"
        if self.search.max_usd is not None and spent_usd >= self.search.max_usd:
            return "budget"
        return None

    def out_of_time(self) -> bool:
        """Whether the deadline is over."""
        return self.deadline_s is not None and time.monotonic() > self.deadline_s

    def _gains_no_more(self, candidates: Sequence[Candidate]) -> bool:
        """Whether the last full recoveries beside the anchors added next to nothing; short ones never do."""
        window, names = self.search.window, self.search.objectives
        teacher = next((candidate for candidate in candidates if candidate.is_teacher), None)
        proposed = [c for c in candidates if c.recipe.recovery == 1 and c.recipe_hash not in self.anchors]
        if window is None or teacher is None or len(proposed) < window:
            return False
        latest = {candidate.recipe_hash for candidate in proposed[-window:]}
        reference = reference_point(teacher, names)
        now, before = (
            hypervolume(positions([c for c in part if c.eligible], names), reference)
            for part in (candidates, [c for c in candidates if c.recipe_hash not in latest])
        )
        return now <= before * (1 + self.search.min_gain)


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates as they were measured; those without a time on record come first."""
    return sorted(candidates, key=lambda c: (c.measured_at or "", c.recipe_hash))


def spent_usd(run: RunFolder) -> float:
    """Dollars of the search so far, over all tries, failed work included."""
    return ledger_usd(read_ledger(run))["component"].get("search", 0.0)


def over_budget(search: SearchConfig, spent_usd: float, measured: int, folder: str) -> OverBudgetError:
    """The error of a search whose dollars are spent before its candidates are measured."""
    return OverBudgetError(
        f"the search has spent ${spent_usd:.4g} after {measured} of {search.trials} candidates",
        where="search.max_usd",
        value=search.max_usd,
        remedy=f"raise it and run again to go on; `equipoise choose {folder}` answers from what was measured",
    )
