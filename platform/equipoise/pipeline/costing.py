"""What `equipoise cost` answers: the four terms of a measured candidate at any traffic and prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from equipoise.config.cost import CostConfig
from equipoise.config.load import validate_config
from equipoise.costs.capacity import plan_capacity
from equipoise.costs.data_lever import LearningPoint, learning_steps
from equipoise.costs.load_curve import LoadCurve, break_even_rps, break_even_sentence, load_curve
from equipoise.costs.price_book import PriceBook, core_second_usd, load_prices, stale_note
from equipoise.costs.profiles import TrafficProfile, load_profile
from equipoise.costs.serving_plan import plan_serving
from equipoise.errors import RunFolderError
from equipoise.pipeline.comparing import find_candidate
from equipoise.pipeline.pricing import RunWork, price_again, read_work
from equipoise.pipeline.summary import require_run
from equipoise.runs import Candidate, RunFolder
from equipoise.search.comparability import hardware_note

_LEAST_HIGHEST_RPS = 1000.0
_HIGHEST_FACTOR = 20.0
_CURVE_POINTS = 25


@dataclass(frozen=True)
class Traffic:
    """Prices and traffic that candidates are priced at."""

    cost: CostConfig
    book: PriceBook
    profile: TrafficProfile

    @property
    def highest_rps(self) -> float:
        """Up to where a load curve is looked at."""
        return max(_LEAST_HIGHEST_RPS, self.cost.rps * _HIGHEST_FACTOR)


def cost_of(
    location: str, candidate: str | None, against: str | None, changes: dict[str, Any]
) -> dict[str, Any]:
    """The four terms of a candidate beside those of another, the break-even between them, its load curve.

    Args:
        location: a run folder, or the bundle in one.
        candidate: `teacher`, `choice` or the beginning of a hash; None is the bundle's, the choice, or,
            before there is one, the cheapest.
        against: likewise; None is the teacher.
        changes: keys of `cost` laid over those of the run's config.

    Raises:
        InputError: there is no such run or candidate, or a price, profile or rate is wrong.
    """
    run, bundled = find_run(location)
    traffic = read_traffic(run, changes)
    candidates = run.candidates()
    if not candidates:
        raise RunFolderError("has no finished candidate", where=run.location, remedy="run the search first")
    work = read_work(run)
    chosen = _pick(run, candidates, candidate or bundled or _choice_hash(run))
    other = _pick(run, candidates, against) if against else _teacher(candidates)
    mine = price_again(chosen, work, traffic.cost, traffic.book, traffic.profile)
    found: dict[str, Any] = {
        "run": run.location,
        "traffic": {
            "rps": traffic.cost.rps,
            "profile": traffic.cost.profile,
            "measured_rps": traffic.profile.measured_rps,
            "p99_ms": traffic.cost.p99_ms,
            "horizon_months": traffic.cost.horizon_months,
            "node": traffic.cost.node,
            "spot": traffic.cost.spot,
        },
        "candidate": _figures(mine, traffic),
        "load_curve": _points(curve_of(mine, traffic), traffic),
        "highest_rps": traffic.highest_rps,
        "labels_buy": labels_buy(run, traffic),
        "stale_prices": stale_note(traffic.book),
        "hardware_note": None,
    }
    if other is None or other.recipe_hash == mine.recipe_hash:
        return {**found, "against": None, "break_even": None}
    theirs = price_again(other, work, traffic.cost, traffic.book, traffic.profile)
    members = [c for c in _frontier(run, candidates) if c.recipe_hash != theirs.recipe_hash]
    return {
        **found,
        "hardware_note": hardware_note([mine, theirs, *members]),
        "against": _figures(theirs, traffic),
        "break_even": break_even(mine, theirs, traffic),
        "break_evens": _break_evens(members, theirs, work, traffic),
    }


def read_traffic(run: RunFolder, changes: dict[str, Any]) -> Traffic:
    """The run's traffic and prices with changes laid over them.

    A CSV of arrivals among the changes brings its own rate, unless a rate is among them too.

    Raises:
        ConfigError: a value is out of range, or the price book or the profile cannot be used.
        DataError: the CSV of arrivals cannot be used.
        RunFolderError: there is no run.
    """
    require_run(run)
    held = run.read("config.json").get("cost", {})
    # Another serving node does not change where the run trained.
    trained_on = {"training_node": held.get("training_node") or held.get("node")}
    cost = validate_config(CostConfig, {**held, **trained_on, **changes}, where="cost")
    profile = load_profile(cost.profile)
    if profile.measured_rps is not None and "profile" in changes and "rps" not in changes:
        cost = cost.model_copy(update={"rps": profile.measured_rps})
    return Traffic(cost, load_prices(cost), profile)


def find_run(location: str) -> tuple[RunFolder, str | None]:
    """The run of a run folder or of the bundle in it, and the candidate that the bundle holds.

    Raises:
        RunFolderError: there is neither.
    """
    run = RunFolder(location)
    if run.has("config.json") or not run.has("bundle.json"):
        require_run(run)
        return run, None
    parent = RunFolder(run.location.rstrip("/").rsplit("/", 1)[0])
    if not parent.has("config.json"):
        raise RunFolderError(
            "is a bundle away from its run, whose records the price needs",
            where=run.location,
            remedy="give the run folder",
        )
    return parent, run.read("bundle.json")["candidate"]["recipe_hash"]


def curve_of(candidate: Candidate, traffic: Traffic) -> LoadCurve:
    """The load curve of a candidate that was priced at this traffic."""
    capacity = plan_capacity(candidate.speed, traffic.cost)
    return load_curve(candidate.cost, capacity, traffic.cost, traffic.book, traffic.profile)


def labels_buy(run: RunFolder, traffic: Traffic) -> list[dict[str, float | None]] | None:
    """What each step of the learning curve gained for its dollars; None where no curve was measured."""
    if not run.has("learning_curve.json"):
        return None
    points = [LearningPoint.model_validate(point) for point in run.read("learning_curve.json")["points"]]
    node = traffic.cost.training_node or traffic.cost.node
    steps = learning_steps(
        points,
        usd_per_label=traffic.book.label.usd_per_label,
        core_second_usd=core_second_usd(traffic.book, node),
    )
    return [step.model_dump(mode="json") for step in steps]


def break_even(candidate: Candidate, other: Candidate, traffic: Traffic) -> dict[str, Any]:
    """Above which rate a candidate is cheaper in total than another, as a number and a sentence."""
    rate = break_even_rps(curve_of(candidate, traffic), curve_of(other, traffic), traffic.highest_rps)
    name = f"{candidate.recipe.label} on {traffic.cost.node}"
    rival = f"the teacher ({other.recipe.label})" if other.is_teacher else other.recipe.label
    return {
        "recipe_hash": candidate.recipe_hash,
        "than": other.recipe_hash,
        "rps": rate,
        "sentence": break_even_sentence(name, rival, rate, traffic.highest_rps, traffic.cost.horizon_months),
    }


def _frontier(run: RunFolder, candidates: list[Candidate]) -> list[Candidate]:
    """Its members; none before it was drawn."""
    members = run.read("frontier.json")["members"] if run.has("frontier.json") else []
    by_hash = {candidate.recipe_hash: candidate for candidate in candidates}
    return [by_hash[name] for name in members if name in by_hash]


def _break_evens(
    found: list[Candidate], other: Candidate, work: RunWork, traffic: Traffic
) -> list[dict[str, Any]]:
    """Those of candidates against another, cheapest first."""
    priced = [price_again(c, work, traffic.cost, traffic.book, traffic.profile) for c in found]
    priced.sort(key=lambda c: (c.cost.total_usd, c.recipe_hash))
    return [break_even(candidate, other, traffic) for candidate in priced]


def _figures(candidate: Candidate, traffic: Traffic) -> dict[str, Any]:
    plan = plan_serving(
        traffic.cost, traffic.book, plan_capacity(candidate.speed, traffic.cost), traffic.profile
    )
    return {
        "recipe_hash": candidate.recipe_hash,
        "label": candidate.recipe.label,
        "is_teacher": candidate.is_teacher,
        "terms": candidate.cost.model_dump(mode="json")
        | {"compute_usd": candidate.cost.compute_usd, "total_usd": candidate.cost.total_usd},
        "nodes": plan.peak_nodes,
        "keeps_p99": None if traffic.cost.p99_ms is None else candidate.cost.p99_ms is not None,
    }


def _points(curve: LoadCurve, traffic: Traffic) -> list[dict[str, float]]:
    rates = np.unique(np.append(np.geomspace(1, traffic.highest_rps, _CURVE_POINTS), traffic.cost.rps))
    serving, total = curve.serving_usd(rates), curve.total_usd(rates)
    columns = {
        "rps": rates,
        "mean_replicas": curve.mean_replicas(rates),
        "serving_usd_per_1k": curve.usd_per_1k(serving, rates),
        "total_usd_per_1k": curve.usd_per_1k(total, rates),
    }
    return [dict(zip(columns, row, strict=True)) for row in np.stack(list(columns.values()), axis=1).tolist()]


def _choice_hash(run: RunFolder) -> str | None:
    record = run.read("choice.json") if run.has("choice.json") else {}
    name: str | None = record.get("recipe_hash")
    return name


def _teacher(candidates: list[Candidate]) -> Candidate | None:
    return next((candidate for candidate in candidates if candidate.is_teacher), None)


def _pick(run: RunFolder, candidates: list[Candidate], name: str | None) -> Candidate:
    if name is not None:
        return find_candidate(run, candidates, name)
    eligible = [candidate for candidate in candidates if candidate.eligible] or candidates
    return min(eligible, key=lambda c: (c.cost.total_usd, c.recipe_hash))
