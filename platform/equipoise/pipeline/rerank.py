"""`equipoise rerank`: at other prices, traffic or latency, which stored candidate is the best?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from equipoise.config.load import validate_config
from equipoise.config.search import ConstraintsConfig
from equipoise.costs.price_book import stale_note
from equipoise.costs.serving_plan import HOURS_PER_MONTH
from equipoise.errors import InfeasibleError, RunFolderError
from equipoise.pipeline.costing import Traffic, read_traffic
from equipoise.pipeline.pricing import binding_constraints, price_again, read_work
from equipoise.runs import Candidate, RunFolder
from equipoise.search.comparability import hardware_note
from equipoise.search.constraints import excesses
from equipoise.search.frontier import frontier
from equipoise.search.selection import diagnose, select

_DAYS_PER_MONTH = HOURS_PER_MONTH / 24


def rerank(
    run: RunFolder, changes: dict[str, Any], *, switch_hours: float, overlap_hours: float
) -> dict[str, Any]:
    """Price every stored candidate at the new prices and traffic, and choose again; nothing is trained.

    Args:
        run: a run whose choice stands.
        changes: keys of `cost` laid over those of the run's config.
        switch_hours: engineer hours that replacing the old choice takes.
        overlap_hours: hours that old and new replicas both stand during the switch.

    Returns:
        The old choice and the new one at the new prices, dollars a month saved, what switching costs, and
        the days until it is paid back; `feasible` says whether any candidate meets the constraints.

    Raises:
        RunFolderError: there is no run, or no choice yet.
        InputError: a price, profile or rate is wrong.
    """
    traffic = read_traffic(run, changes)
    stored = {candidate.recipe_hash: candidate for candidate in run.candidates()}
    record = run.read("choice.json")
    if not record["feasible"] or record["recipe_hash"] not in stored:
        raise RunFolderError(
            "has no choice to rank against", where=run.location, remedy="equipoise choose makes one"
        )
    work = read_work(run)
    candidates = [
        price_again(candidate, work, traffic.cost, traffic.book, traffic.profile)
        for candidate in stored.values()
        if candidate.eligible or candidate.recipe_hash == record["recipe_hash"]
    ]
    old = next(candidate for candidate in candidates if candidate.recipe_hash == record["recipe_hash"])
    config = run.read("config.json")
    held = validate_config(ConstraintsConfig, config.get("constraints", {}), where="constraints")
    constraints = binding_constraints(held, traffic.cost)
    objectives = run.read("frontier.json")["objectives"]
    common = {
        "run": run.location,
        "hardware_note": hardware_note(candidates),
        "stale_prices": stale_note(traffic.book),
        "rps": traffic.cost.rps,
        "profile": traffic.cost.profile,
        "p99_ms": traffic.cost.p99_ms,
        "horizon_months": traffic.cost.horizon_months,
        "was": _figures(stored[old.recipe_hash], None),
        "old": _figures(old, constraints),
        "frontier": [member.recipe_hash for member in frontier(candidates, objectives)],
        "ranking": [candidate.recipe_hash for candidate in _ranked(candidates, constraints)],
    }
    try:
        new = select(candidates, constraints)
    except InfeasibleError:
        return {**diagnose(candidates, constraints), **common, "new": None}
    if monthly_usd(new) >= monthly_usd(old) and not excesses(old, constraints):
        # The old one is dearer only by the search, and that is spent.
        new = old
    return {
        **common,
        "feasible": True,
        "new": _figures(new, constraints),
        **switch(old, new, traffic, switch_hours=switch_hours, overlap_hours=overlap_hours),
    }


def switch(
    old: Candidate, new: Candidate, traffic: Traffic, *, switch_hours: float, overlap_hours: float
) -> dict[str, Any]:
    """What replacing one deployed candidate by another saves, costs, and when it has paid.

    `saved_usd_month` counts what runs by the month: serving, storage, upkeep and retrainings; what was spent
    on training and search is spent either way. Switching costs people's hours, and both fleets for a while.
    """
    if new.recipe_hash == old.recipe_hash:
        return {"switch": False, "saved_usd_month": 0.0, "switching_usd": 0.0, "pay_back_days": None}
    saved = monthly_usd(old) - monthly_usd(new)
    people = switch_hours * traffic.book.engineer.usd_per_hour
    overlap = overlap_hours * new.cost.serving_usd_month / HOURS_PER_MONTH
    cost = people + overlap
    return {
        "switch": True,
        "saved_usd_month": saved,
        "switching_usd": cost,
        "switching_people_usd": people,
        "switching_overlap_usd": overlap,
        "pay_back_days": cost / saved * _DAYS_PER_MONTH if saved > 0 else None,
    }


def monthly_usd(candidate: Candidate) -> float:
    """Dollars a month that a deployed candidate goes on costing."""
    cost = candidate.cost
    return (cost.compute_serving_usd + cost.storage_usd + cost.maintenance_usd) / cost.horizon_months


def _ranked(candidates: Sequence[Candidate], constraints: ConstraintsConfig) -> list[Candidate]:
    """Those that meet the constraints, cheapest in total first."""
    fitting = [c for c in candidates if c.eligible and not excesses(c, constraints)]
    return sorted(fitting, key=lambda c: (round(c.cost.total_usd, 6), -c.quality.metric.value, c.recipe_hash))


def _figures(candidate: Candidate, constraints: ConstraintsConfig | None) -> dict[str, Any]:
    cost = candidate.cost
    return {
        "recipe_hash": candidate.recipe_hash,
        "label": candidate.recipe.label,
        "replicas": cost.replicas,
        "mean_replicas": cost.mean_replicas,
        "serving_usd_month": cost.serving_usd_month,
        "serving_usd_per_1k": cost.serving_usd_per_1k,
        "total_usd": cost.total_usd,
        "rps": cost.rps,
        "violates": sorted(excesses(candidate, constraints)) if constraints else [],
    }
