"""A run folder in one dictionary: what `equipoise show --json` prints."""

from __future__ import annotations

from typing import Any

from equipoise.costs.ledger import ledger_usd, read_ledger
from equipoise.costs.ledger_reconcile import reconcile
from equipoise.errors import RunFolderError
from equipoise.runs import Candidate, Quality, RunFolder
from equipoise.search.comparability import disturbed_note, hardware_note, memory_note, slower_notes


def summarize(run: RunFolder) -> dict[str, Any]:
    """Counts, choice, served figures, dollars and seconds; a stage not reached is None.

    Raises:
        RunFolderError: there is no run.
    """
    require_run(run)
    candidates = run.candidates()
    lines = read_ledger(run)
    usd = ledger_usd(lines)
    frontier = run.read("frontier.json") if run.has("frontier.json") else None
    served = run.read("served.json") if run.has("served.json") else None
    config = run.read("config.json")
    return {
        "run": run.location,
        "name": config["name"],
        "candidates": len(candidates),
        "hardware_note": hardware_note(candidates),
        "disturbed_note": disturbed_note(candidates),
        "memory_note": memory_note(candidates, config["cost"]["replica_memory_gib"]),
        "slower": slower_notes(candidates),
        "engines": sorted({candidate.recipe.engine for candidate in candidates}),
        "structures": len({candidate.recipe.structure for candidate in candidates}),
        "rejected": sum(not candidate.eligible for candidate in candidates),
        "frontier": len(frontier["members"]) if frontier else None,
        "dominated": len(frontier["dominated"]) if frontier else None,
        "choice": _choice(run, candidates),
        "served": {k: v for k, v in served.items() if k != "differing_rows"} if served else None,
        "ledger_usd": sum(usd["component"].values()),
        "ledger_usd_by_component": usd["component"],
        "ledger_usd_by_class": usd["charge_class"],
        "ledger_usd_by_term": usd["term"],
        "ledger": _ledger(run),
        "elapsed_s": sum(
            line.quantity for line in lines if line.kind == "node" and line.component == "pipeline"
        ),
    }


def _ledger(run: RunFolder) -> dict[str, Any]:
    """Whether the lines add up to the node-hours, and by how much they are off."""
    found = reconcile(run)
    nodes = sum(period.node_hours for period in found.periods)
    off = sum(period.missing_hours + period.excess_hours for period in found.periods)
    return {
        "reconciles": found.reconciles,
        "node_hours": nodes,
        "idle_share": sum(period.idle_hours for period in found.periods) / nodes if nodes else None,
        "difference": off / nodes if nodes else None,
        "lines": found.lines,
    }


def require_run(run: RunFolder) -> None:
    """Raise RunFolderError unless the location holds a run."""
    if not run.has("config.json"):
        raise RunFolderError("is no run folder: it has no config.json", where=run.location)


def _choice(run: RunFolder, candidates: list[Candidate]) -> dict[str, Any] | None:
    if not run.has("choice.json"):
        return None
    record = run.read("choice.json")
    if not record["feasible"]:
        return {"feasible": False, "reason": record["reason"]}
    by_hash = {candidate.recipe_hash: candidate for candidate in candidates}
    choice, teacher = by_hash[record["recipe_hash"]], by_hash[record["teacher_hash"]]
    drop, split = choice.metric_drop.model_dump(), "validation"
    quality: dict[str, Any] = {}
    if run.has("test.json"):
        test = run.read("test.json")
        drop, split = test["drop"], "test"
        quality = {
            "metric": test["choice"]["metric"]["value"],
            "teacher_metric": test["teacher"]["metric"]["value"],
        }
        for name, who in (("", "choice"), ("teacher_", "teacher")):
            measured = Quality.model_validate(test[who])
            if measured.macro_f1 is not None:
                quality[f"{name}macro_f1"] = measured.macro_f1.value
            if measured.perplexity is not None:
                quality[f"{name}perplexity"] = measured.perplexity.value
    return {
        "feasible": True,
        "recipe": choice.recipe.label,
        "recipe_hash": choice.recipe_hash,
        "reason": record["reason"],
        "split": split,
        "metric_name": choice.quality.metric_name,
        **quality,
        "metric_drop": drop["value"],
        "metric_drop_ci": [drop["low"], drop["high"]],
        "rps": choice.cost.rps,
        "replicas": choice.cost.replicas,
        "teacher_replicas": teacher.cost.replicas,
        "serving_usd_per_1k": choice.cost.serving_usd_per_1k,
        "teacher_serving_usd_per_1k": teacher.cost.serving_usd_per_1k,
        "total_usd_per_1k": choice.cost.total_usd_per_1k,
        "cost_ratio": record["cost_ratio"],
        "horizon_months": choice.cost.horizon_months,
        "serving_usd_month": choice.cost.serving_usd_month,
        "teacher_serving_usd_month": teacher.cost.serving_usd_month,
        "total_usd": choice.cost.total_usd,
        "teacher_total_usd": teacher.cost.total_usd,
        "saves_usd": record["saves_usd"],
    }
