"""When a search has done enough: candidates, hypervolume, time or dollars."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from equipoise.config.search import SearchConfig
from equipoise.costs.ledger import ledger_usd, read_ledger
from equipoise.errors import OverBudgetError
from equipoise.runs import Candidate, RunFolder
from equipoise.search.hypervolume import hypervolume, positions, reference_point

Reason = Literal["trials", "gain", "time", "budget"]


@dataclass(frozen=True)
class Limits:
    """What ends a search.

    Args:
        wanted: different candidates to measure, those of earlier tries included.
        anchors: how many of them are measured whatever they gain; the window starts after them.
        deadline_s: on the clock of `time.monotonic`; None is no limit.
    """

    search: SearchConfig
    wanted: int
    anchors: int
    deadline_s: float | None

    def reached(self, candidates: Sequence[Candidate], spent_usd: float) -> Reason | None:
        """Why no further trial should start; None where one should.

        Args:
            candidates: in the order they were measured.
            spent_usd: dollars of the search so far, over all tries.
        """
        if len(candidates) >= self.wanted:
            return "trials"
        if self._gains_no_more(candidates):
            return "gain"
        if self.deadline_s is not None and time.monotonic() > self.deadline_s:
            return "time"
        if self.search.max_usd is not None and spent_usd >= self.search.max_usd:
            return "budget"
        return None

    def _gains_no_more(self, candidates: Sequence[Candidate]) -> bool:
        window, names = self.search.window, self.search.objectives
        teacher = next((candidate for candidate in candidates if candidate.is_teacher), None)
        if window is None or teacher is None or len(candidates) < self.anchors + window:
            return False
        reference = reference_point(teacher, names)
        now, before = (
            hypervolume(positions([c for c in part if c.eligible], names), reference)
            for part in (candidates, candidates[:-window])
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
