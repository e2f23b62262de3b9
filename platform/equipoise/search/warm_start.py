"""Recipes that did well in earlier runs of the same task on the same hardware, to be tried early."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise import hardware
from equipoise.config import RunConfig
from equipoise.errors import ConfigError
from equipoise.placement import describe_measuring_hardware
from equipoise.runs import Candidate, Recipe, RunFolder

_FIELD = "search.warm_start"


def serving_fingerprint(config: RunConfig) -> str:
    """Of the hardware that this run's candidates are timed on, whichever machine asks.

    Raises:
        ConfigError: no node of the cluster is such hardware.
    """
    return hardware.fingerprint(describe_measuring_hardware(config.search.serving_nodes))


def earlier_recipes(locations: Sequence[str], *, task: str, fingerprint: str | None) -> list[Recipe]:
    """The choice and the frontier of each earlier run, the choice first, each recipe once.

    Only recipes are taken over. Their figures belong to other data or another teacher: the new run
    measures them itself.

    Args:
        locations: run folders, paths or URIs.
        task: the task family that they must have been of.
        fingerprint: the hardware that their candidates must have been measured on; None where that is
            not known yet, and any will do.

    Raises:
        ConfigError: a location holds no run, or one of another task or other hardware.
    """
    found: dict[Recipe, None] = {}
    for location in locations:
        run = RunFolder(location)
        if not run.has("config.json"):
            raise ConfigError(
                "is no run folder", where=_FIELD, value=location, remedy="correct it, or leave it out"
            )
        held = run.read("config.json").get("task")
        if held != task:
            raise ConfigError(
                f"is a run of {held}, not of {task}", where=_FIELD, value=location, remedy="leave it out"
            )
        candidates = run.candidates()
        same = [c for c in candidates if fingerprint in (None, c.hardware.get("fingerprint"))]
        if candidates and not same:
            raise ConfigError(
                f"was measured on other hardware ({candidates[0].hardware.get('fingerprint')}, "
                f"this run times on {fingerprint})",
                where=_FIELD,
                value=location,
                remedy="leave it out",
            )
        found |= dict.fromkeys(candidate.recipe for candidate in _best(run, same))
    return list(found)


def _best(run: RunFolder, candidates: Sequence[Candidate]) -> list[Candidate]:
    by_hash = {candidate.recipe_hash: candidate for candidate in candidates if candidate.eligible}
    choice = run.read("choice.json").get("recipe_hash") if run.has("choice.json") else None
    members = run.read("frontier.json")["members"] if run.has("frontier.json") else []
    return [by_hash[name] for name in dict.fromkeys([choice, *members]) if name in by_hash]
