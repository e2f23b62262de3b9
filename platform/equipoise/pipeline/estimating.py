"""`equipoise estimate`, the estimate that a run stores when it starts, and how it met in the end."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

import numpy as np

from equipoise import hardware
from equipoise.config import RunConfig
from equipoise.costs.estimate import STAGES, Range, RunEstimate, RunSize, SeenRun, estimate_run
from equipoise.costs.ledger import ledger_usd, read_ledger
from equipoise.costs.price_book import core_second_usd, load_prices
from equipoise.errors import EquipoiseError
from equipoise.pipeline.kept_estimates import told_estimate
from equipoise.pipeline.metered_node import PIPELINE
from equipoise.pipeline.preflight import Checked
from equipoise.pipeline.seen_runs import find_seen, judged_rows, observe, remember
from equipoise.runs import RunFolder
from equipoise.search.space import open_space
from equipoise.tasks import find_task
from equipoise.training.deepspeed_config import resolve_workers

_log = logging.getLogger(__name__)
_BUSY_SHARE = 0.5
"""Of the cores; beyond it whatever is timed waits for them."""
_MEASURED_ROWS = 500
"""Training rows whose lengths stand for those of all."""


def run_size(config: RunConfig, checked: Checked) -> RunSize:
    """What a checked config asks for; the search is taken to try every structure it has room for."""
    family = find_task(config.task)
    space = open_space(config, checked.base, family.layout, family.model_class)
    candidates = min(config.search.trials, space.size)
    recipes = space.anchors()[:candidates]
    depths = {recipe.structure: recipe.depth for recipe in recipes if recipe.distilled}
    rows, validation = len(checked.data.train), len(checked.data.validation)
    task = family.create(checked.base, checked.data.labels, config.model)
    some = checked.data.train.select(np.arange(0, rows, max(1, rows // _MEASURED_ROWS)))
    return RunSize(
        teacher_rows=rows * config.training.epochs,
        teacher_depth=space.teacher_depth,
        output_rows=rows + validation,
        student_rows=rows * config.distillation.epochs,
        student_depths=tuple(depths.values()),
        candidates=candidates,
        judged_rows=judged_rows(config, validation, rows),
        workers=resolve_workers(config.training),
        cores=len(hardware.usable_cores()),
        row_tokens=float(np.mean(task.lengths(some.inputs))),
        batch_size=config.training.batch_size,
    )


def estimate(config: RunConfig, checked: Checked, seen: list[SeenRun]) -> RunEstimate:
    """The estimate of a checked config from what was seen; at least one run or record of steps.

    Raises:
        ConfigError: the training node is not in the price book.
    """
    book = load_prices(config.cost)
    node = config.cost.training_node or config.cost.node
    return estimate_run(
        run_size(config, checked),
        seen,
        fingerprint=hardware.fingerprint(hardware.describe_hardware()),
        core_second_usd=core_second_usd(book, node),
        node_usd_per_hour=book.node(node).usd_per_hour,
    )


def time_steps(config: RunConfig, checked: Checked) -> SeenRun:
    """What a run would take by a few steps of every stage, on the real path, in a folder that is thrown away.

    Raises:
        EquipoiseError: a stage failed.
    """
    from equipoise.pipeline.timed_steps import time_stages

    family = find_task(config.task)
    space = open_space(config, checked.base, family.layout, family.model_class)
    return time_stages(config, checked, run_size(config, checked), space)


def busy_note() -> str | None:
    """One sentence where others use this machine's cores; None where most of them are free.

    Steps that are timed now take longer than on a machine that is free, and so does the whole estimate.
    """
    waiting, cores = os.getloadavg()[0], len(hardware.usable_cores())
    if waiting <= _BUSY_SHARE * cores:
        return None
    return f"this machine is busy (load {waiting:.1f} on {cores} cores): the estimate is for one as busy"


def store_estimate(run: RunFolder, config: RunConfig, checked: Checked) -> RunEstimate | None:
    """Put `estimate.json` as a run starts: from earlier runs on this hardware, or what `equipoise estimate`
    last told of this config; None where there is neither."""
    if run.has("estimate.json"):
        return RunEstimate.model_validate(run.read("estimate.json"))
    seen = [found for found in find_seen(config, run.location) if found.run != run.location]
    found = estimate(config, checked, seen) if seen else told_estimate(config)
    if found is not None:
        run.put(found.model_dump(mode="json"), "estimate.json")
    return found


def record_actual(run: RunFolder) -> dict[str, Any] | None:
    """Put `actual.json` as a run ends: what each stage took beside its estimate; remember it for next time.

    Never fails a run that is finished: what cannot be told or kept is logged.
    """
    if run.has("actual.json"):
        found: dict[str, Any] = run.read("actual.json")
        return found
    try:
        seen = observe(run)
        if seen is None:
            return None
        record = _compare(run, seen)
        run.put(record, "actual.json")
        remember(seen)
    except (EquipoiseError, OSError) as error:
        _log.warning("what the run took is not remembered: %s", error)
        return None
    return record


def _compare(run: RunFolder, seen: SeenRun) -> dict[str, Any]:
    held = RunEstimate.model_validate(run.read("estimate.json")) if run.has("estimate.json") else None
    stages = {
        stage: _beside(seen.seconds[stage], held.seconds[stage] if held else None, "s") for stage in STAGES
    }
    total = _beside(seen.total_s, held.total_s if held else None, "s")
    lines = read_ledger(run)
    by_component = ledger_usd(lines)["component"]
    node_usd = math.fsum(
        line.billed_cost_usd for line in lines if line.kind == "node" and line.component == PIPELINE
    )
    dollars = {
        "training": _beside(by_component.get("training", 0.0), held.training_usd if held else None, "usd"),
        "search": _beside(by_component.get("search", 0.0), held.search_usd if held else None, "usd"),
        "node": _beside(node_usd, held.node_usd if held else None, "usd"),
    }
    return {
        "fingerprint": seen.fingerprint,
        "basis": held.basis if held else None,
        "tries": seen.tries,
        "stages": stages,
        "total": total,
        "dollars": dollars,
        "error": seen.error,
        "within_range": held.total_s.low <= seen.total_s <= held.total_s.high if held else None,
    }


def _beside(actual: float, estimated: Range | None, unit: str) -> dict[str, float | None]:
    return {
        f"actual_{unit}": actual,
        f"estimated_{unit}": estimated.value if estimated else None,
    }
