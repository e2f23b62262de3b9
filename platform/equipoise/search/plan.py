"""What a search does next, decided from what was measured and what is under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal

from equipoise.compression.structure import recipe_hash
from equipoise.runs import Candidate, Recipe, RunFolder
from equipoise.search.limits import Limits, Reason, spent_usd
from equipoise.search.recovery import in_full, promising, structure_of

REPEATS = 6
"""Proposals asked for, for each wanted candidate: a sampler may propose a recipe again."""

Step = Recipe | Literal["ask", "wait", "done"]


class Plan:
    """The first recipes, then whatever is promoted to full recovery, then what the sampler proposes.

    Nothing is started beyond a limit; what is under way by then is finished. Lives in the driver, and
    holds nothing that cannot be written to disk.

    Args:
        limits: what ends the search.
        folder: the run folder, whose records are read as trials end.
        finished: candidates of earlier tries; the sampler is told of them first.
        given: recipes that come next, as they are, at full recovery: the teacher's, written ones, the best
            of earlier runs.
        anchors: further recipes before the sampler is asked.
    """

    def __init__(
        self,
        limits: Limits,
        folder: str,
        finished: Sequence[Candidate] = (),
        given: Sequence[Recipe] = (),
        anchors: Sequence[Recipe] = (),
    ) -> None:
        self.limits, self.folder = limits, folder
        self.measured = {candidate.recipe_hash: candidate for candidate in finished}
        self.dropped: set[str] = set()
        self.reason: Reason | None = None
        self._under_way: dict[str, Recipe] = {}
        self._asked = 0
        self._closing = False
        self._given = set(given)
        self._full = {
            structure_of(recipe)
            for recipe in (*given, *(candidate.recipe for candidate in finished))
            if recipe.recovery == 1
        }
        known = {in_full(candidate.recipe) for candidate in finished}
        rest = [recipe for recipe in dict.fromkeys([*given, *anchors]) if recipe not in known]
        self._first = deque([*self.measured_recipes(), *rest[: max(0, limits.wanted - len(known))]])

    def measured_recipes(self) -> list[Recipe]:
        """Of every candidate so far."""
        return [candidate.recipe for candidate in self.measured.values()]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to measure, promotions included."""
        rest = any(recipe_hash(recipe) not in self.measured for recipe in self._first)
        return not rest and len(self._points()) >= self.limits.wanted and not self._promoted(last=True)

    def next(self) -> Step:
        """A recipe to measure; or to ask the sampler for one, to wait for what is under way, or the end."""
        if self.reason in (None, "trials") and self.limits.out_of_time():
            self.reason = "time"
        if self.reason not in (None, "trials"):
            return "done"
        if self._first:
            return self.recovered(self._first.popleft())
        if promoted := self._promoted():
            return promoted
        if len(self._points()) < self.limits.wanted and self._asked < REPEATS * self.limits.wanted:
            self._asked += 1
            return "ask"
        if self._under_way and not self._closing:
            return "wait"
        self._closing = True
        return self._promoted(last=True) or "done"

    def recovered(self, recipe: Recipe) -> Recipe:
        """The recipe as it is tried now: shortly where its structure is a student not trained in full yet."""
        share = self.limits.search.first_recovery
        settled = recipe.recovery < 1 or recipe_hash(recipe) in self.measured or recipe in self._given
        if share == 1 or settled or not recipe.distilled or structure_of(recipe) in self._full:
            return recipe
        return recipe.model_copy(update={"recovery": share})

    def started(self, trial: str, recipe: Recipe) -> None:
        """Note what a trial measures."""
        self._under_way[trial] = recipe
        if recipe.recovery == 1:
            self._full.add(structure_of(recipe))

    def ended(self, trial: str, *, candidate: str | None = None, dropped: bool = False) -> None:
        """Note what became of it.

        Args:
            candidate: hash of the candidate that stands now.
            dropped: it was too slow to be distilled.
        """
        recipe = self._under_way.pop(trial, None)
        run = RunFolder(self.folder)
        if candidate and candidate not in self.measured:
            self.measured[candidate] = Candidate.model_validate(run.read("candidates", f"{candidate}.json"))
        if dropped and recipe is not None:
            self.dropped.add(recipe_hash(in_full(recipe)))
        spent = spent_usd(run) if self.limits.search.max_usd is not None else 0.0
        self.reason = self.limits.reached(list(self.measured.values()), spent, self.dropped)

    def _points(self) -> set[str]:
        """Recipes that are candidates or will be, whatever their recovery."""
        known = [*self.measured_recipes(), *self._under_way.values()]
        return {recipe_hash(in_full(recipe)) for recipe in known} - self.dropped

    def _promoted(self, *, last: bool = False) -> Recipe | None:
        if self.limits.search.first_recovery == 1:
            return None
        names = self.limits.search.objectives
        under_way = {recipe_hash(recipe) for recipe in self._under_way.values()}
        for recipe in promising(list(self.measured.values()), names, last=last):
            name = recipe_hash(recipe)
            if name not in self.measured and name not in under_way and name not in self.dropped:
                return recipe
        return None
