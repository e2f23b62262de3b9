"""Where each candidate of a run stands: teacher, choice, frontier, dominated or rejected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from equipoise.errors import RunFolderError
from equipoise.runs import Candidate, RunFolder
from equipoise.runs.predictions import read_predictions
from equipoise.search.comparison import Comparison, compare_predictions

_RESAMPLES = 1000

GROUPS = ("choice", "teacher", "frontier", "dominated", "rejected")


@dataclass(frozen=True)
class Standing:
    """The candidates of a run, each in one group; the choice comes before the teacher, and so on.

    `frontier` and `choice` are the run's records, empty where the run did not get that far;
    `comparison` is the choice against the teacher, None where either has no predictions on record.
    """

    candidates: tuple[Candidate, ...]
    frontier: dict[str, Any]
    choice: dict[str, Any]
    comparison: Comparison | None = None

    def group(self, candidate: Candidate) -> str:
        """One of `GROUPS`."""
        if candidate.recipe_hash == self.choice.get("recipe_hash"):
            return "choice"
        if candidate.is_teacher:
            return "teacher"
        if not candidate.eligible:
            return "rejected"
        return "frontier" if candidate.recipe_hash in self.frontier.get("members", ()) else "dominated"

    def members(self, group: str) -> list[Candidate]:
        """The candidates of one group, cheapest to serve first."""
        return [candidate for candidate in self.candidates if self.group(candidate) == group]

    @property
    def chosen(self) -> Candidate | None:
        """The choice; None where none was made or met the constraints."""
        return next(iter(self.members("choice")), None)

    @property
    def teacher(self) -> Candidate | None:
        """The teacher; None where it was not measured."""
        return next((candidate for candidate in self.candidates if candidate.is_teacher), None)

    @property
    def rps(self) -> float | None:
        """The one arrival rate that every candidate was priced at; None where they differ."""
        rates = {candidate.cost.rps for candidate in self.candidates}
        return rates.pop() if len(rates) == 1 else None


def read_standing(run: RunFolder) -> Standing:
    """Read the candidates of a run, cheapest to serve first, and what was decided on them.

    Raises:
        RunFolderError: the run has no finished candidate.
    """
    candidates = run.candidates()
    if not candidates:
        raise RunFolderError(
            "has no finished candidate to report", where=run.location, remedy="run the search first"
        )
    ordered = sorted(candidates, key=lambda c: (c.cost.serving_usd_per_1k, c.recipe_hash))
    found = Standing(tuple(ordered), read_record(run, "frontier.json"), read_record(run, "choice.json"))
    return replace(found, comparison=_compare(run, found))


def read_record(run: RunFolder, name: str) -> dict[str, Any]:
    """A record of the run that is an object; empty where there is none."""
    record = run.read(name) if run.has(name) else {}
    return record if isinstance(record, dict) else {"value": record}


def _compare(run: RunFolder, standing: Standing) -> Comparison | None:
    if standing.chosen is None or standing.teacher is None or standing.chosen.is_teacher:
        return None
    first, second = (read_predictions(run, c.recipe_hash) for c in (standing.teacher, standing.chosen))
    if first is None or second is None or not first.same_places(second):
        return None
    config, labels = read_record(run, "config.json"), read_record(run, "data.json").get("labels", [])
    measurement = config.get("measurement")
    resamples = measurement.get("resamples", _RESAMPLES) if isinstance(measurement, dict) else _RESAMPLES
    return compare_predictions(first, second, labels, resamples=resamples, seed=config.get("seed", 0))
