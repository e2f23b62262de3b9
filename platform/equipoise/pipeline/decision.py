"""What `equipoise choose` answers: the choice that a run's candidates give under other constraints."""

from __future__ import annotations

from typing import Any

from equipoise.config.cost import CostConfig
from equipoise.config.load import validate_config
from equipoise.config.search import ConstraintsConfig
from equipoise.costs.capacity import plan_capacity
from equipoise.costs.price_book import PriceBook, load_prices
from equipoise.costs.repricing import reprice_at
from equipoise.errors import InfeasibleError, RunFolderError
from equipoise.pipeline.pricing import binding_constraints
from equipoise.pipeline.summary import require_run
from equipoise.runs import Candidate, RunFolder
from equipoise.search.comparability import hardware_note
from equipoise.search.selection import diagnose, explain, select


def decide(run: RunFolder, changes: dict[str, float | None], rps: float | None = None) -> dict[str, Any]:
    """Choose among the measured candidates of a run; nothing is measured and nothing is written.

    Args:
        changes: constraints laid over those of the run's config; None lifts one.
        rps: arrival rate to price at; None keeps the prices on record.

    Returns:
        `explain`'s record with the figures of choice and teacher, or `diagnose`'s where none fits.

    Raises:
        ConfigError: a constraint or the rate is out of range, or the price book cannot be read.
        RunFolderError: there is no run, or it has no finished candidate.
    """
    require_run(run)
    config = run.read("config.json")
    held = {**config.get("constraints", {}), **changes}
    constraints = validate_config(ConstraintsConfig, held, where="constraints")
    rate = {} if rps is None else {"rps": rps}
    cost = validate_config(CostConfig, config.get("cost", {}) | rate, where="cost")
    constraints = binding_constraints(constraints, cost)
    candidates = run.candidates()
    if not candidates:
        raise RunFolderError("has no finished candidate", where=run.location, remedy="run the search first")
    if rps is None:
        return {"run": run.location, **_answer(candidates, constraints)}
    return {"run": run.location, **_answer_at_rate(candidates, constraints, cost)}


def _answer_at_rate(
    candidates: list[Candidate], constraints: ConstraintsConfig, cost: CostConfig
) -> dict[str, Any]:
    """The answer with every candidate priced at the config's arrival rate.

    What a replica carries at a latency objective takes a quarter of a second to replay. So prices start
    as lower bounds, without the objective, and only what an answer names is priced with it, until
    nothing that it names is still a bound: then no other candidate can be cheaper.
    """
    book = load_prices(cost)
    priced = [_at_rate(candidate, cost, book, objective=False) for candidate in candidates]
    exact = {c.recipe_hash for c in candidates} if cost.p99_ms is None else set()
    while True:
        found = _answer(priced, constraints)
        rough = _named(found) - exact
        if not rough:
            return found
        priced = [
            _at_rate(candidate, cost, book, objective=True) if candidate.recipe_hash in rough else candidate
            for candidate in priced
        ]
        exact |= rough


def _answer(candidates: list[Candidate], constraints: ConstraintsConfig) -> dict[str, Any]:
    teacher = next((candidate for candidate in candidates if candidate.is_teacher), None)
    common = {
        "candidates": len(candidates),
        "hardware_note": hardware_note(candidates),
        "eligible": sum(candidate.eligible for candidate in candidates),
        "rps": candidates[0].cost.rps,
        "horizon_months": candidates[0].cost.horizon_months,
        "teacher": _figures(teacher),
    }
    try:
        choice = select(candidates, constraints)
    except InfeasibleError:
        return {**diagnose(candidates, constraints), **common}
    return {**explain(choice, teacher, candidates, constraints), **common, "choice": _figures(choice)}


def _named(found: dict[str, Any]) -> set[str]:
    """Hashes of the candidates that an answer rests on."""
    named = [found["teacher_hash"], found.get("recipe_hash"), (found.get("nearest") or {}).get("recipe_hash")]
    named += [wider["recipe_hash"] for wider in found.get("relaxed", {}).values()]
    named += found.get("enough_alone_by", {}).values()
    return {name for name in named if name is not None}


def _at_rate(candidate: Candidate, cost: CostConfig, book: PriceBook, *, objective: bool) -> Candidate:
    """The candidate priced at the config's arrival rate, with its latency objective or without."""
    terms = reprice_at(
        cost.rps,
        candidate.cost,
        throughput_rps=candidate.speed.throughput_rps.value,
        cost=cost,
        book=book,
        capacity=plan_capacity(candidate.speed, cost) if objective else None,
    )
    return candidate.model_copy(update={"cost": terms})


def _figures(candidate: Candidate | None) -> dict[str, Any] | None:
    if candidate is None:
        return None
    quality, cost = candidate.quality, candidate.cost
    return {
        "recipe_hash": candidate.recipe_hash,
        "label": candidate.recipe.label,
        "metric_name": quality.metric_name,
        "metric": quality.metric.model_dump(),
        "metric_drop": candidate.metric_drop.model_dump(),
        "robustness": quality.robustness.value if quality.robustness else None,
        "latency_p99_ms": candidate.speed.latency_p99_ms.model_dump(),
        "throughput_rps": candidate.speed.throughput_rps.value,
        "bytes": candidate.bytes,
        "replicas": cost.replicas,
        "serving_usd_month": cost.serving_usd_month,
        "serving_usd_per_1k": cost.serving_usd_per_1k,
        "total_usd": cost.total_usd,
    }
