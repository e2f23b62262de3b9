"""Recipes that name a speed instead of widths: refused or tabled before training, chosen after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from equipoise.compression.latency_measure import cached_table
from equipoise.compression.latency_table import Fitted, LatencyTable, fit_structure
from equipoise.config import RunConfig
from equipoise.config.compression import Prune, Quantize, steps_of
from equipoise.data import PreparedData
from equipoise.runs import RunFolder
from equipoise.search.context import TrialContext
from equipoise.search.measured import calibration_batches
from equipoise.search.starts import read_scores
from equipoise.tasks import Task

FILE = "targets.json"
Tables = dict[int, LatencyTable]
"""By the number of the recipe in `compression.recipes`."""


def measure_targets(
    config: RunConfig,
    base: Path,
    data: PreparedData,
    task: Task,
    tell: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Tables:
    """The latency table of each recipe that names a speed; those of one engine and precision share one.

    Raises:
        ConfigError: a target beyond its table's end.
    """
    found: Tables = {}
    for place, (prune, run) in enumerate(_steps(config)):
        if not prune.timed:
            continue
        found[place] = cached_table(
            base,
            task,
            data.validation.inputs,
            calibration_batches(task, data.train.inputs, config.seed),
            engine=run.engine,
            precision=run.precision,
            seed=config.seed,
            tell=tell,
        )
        _budget(found[place], prune, place)
    return found


def choose_targets(context: TrialContext, tables: Tables) -> dict[int, Fitted]:
    """The structure of each recipe that names a speed, by the trained teacher's scores; chosen once a run."""
    run = RunFolder(context.folder)
    if not run.has(FILE):
        steps = _steps(context.config)
        chosen = {}
        for place, table in tables.items():
            prune = steps[place][0]
            scores = read_scores(context, prune.importance)
            chosen[place] = fit_structure(table, scores, _budget(table, prune, place))
        run.put(
            {
                str(place): {"structure": fitted.model_dump(), "table": tables[place].model_dump(mode="json")}
                for place, fitted in chosen.items()
            },
            FILE,
        )
    return {int(place): Fitted.model_validate(held["structure"]) for place, held in run.read(FILE).items()}


def _budget(table: LatencyTable, prune: Prune, place: int) -> float:
    key = "speedup" if prune.speedup is not None else "p99_ms"
    where = f"compression.recipes.{place}.prune.{key}"
    return table.budget_ms(speedup=prune.speedup, p99_ms=prune.p99_ms, where=where)


def _steps(config: RunConfig) -> list[tuple[Prune, Quantize]]:
    return [steps_of(steps) for steps in config.compression.recipes]
