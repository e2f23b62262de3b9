"""The cheap check before a distillation: is the structure fast enough for the latency objective?

Speed needs no training. A student that is still nothing but the teacher's layers is exported and
timed; where it cannot meet `constraints.p99_ms` on that engine, it is not distilled for it. Where the
whole teacher meets it on that engine, in that precision, a part of the teacher is not timed for that.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from equipoise import storage
from equipoise.compression.export import export_model
from equipoise.compression.structure import recipe_hash, structure_key
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.observability import progress
from equipoise.placement import find_placement
from equipoise.runs import Recipe, RunFolder, Speed
from equipoise.search.context import TrialContext
from equipoise.search.measured import calibration_batches, time_candidate
from equipoise.search.starts import build_start
from equipoise.search.turns import ALONE, MEASURING, Turns


def screen_recipe(
    context: TrialContext, reference: Any, recipe: Recipe, turns: Turns = ALONE
) -> Speed | None:
    """The speed that keeps a recipe from being distilled; None where it should be measured.

    Too slow is one whose p99 lies above the objective with the whole of its 95% interval. What was
    timed stays on record (`screened/<recipe_hash>.json`), so that no try repeats it. Nothing is timed
    without a latency objective, for the teacher's own structure, once the structure is distilled, or where
    the whole teacher is known to meet the objective with the same engine and precision.

    Args:
        reference: object reference to `context`, which the Ray tasks below are handed.
        turns: of the search's trials, where several run at once.
    """
    recipe = recipe.model_copy(update={"recovery": 1.0})  # Speed knows nothing of it.
    bound = context.config.constraints.p99_ms
    run, name = RunFolder(context.folder), recipe_hash(recipe)
    trained = run.has("students", structure_key(recipe), "trained.json")
    if bound is None or not recipe.distilled or trained or run.has("candidates", f"{name}.json"):
        return None
    if not run.has("screened", f"{name}.json"):
        if _whole_meets(run, recipe, bound):
            return None
        speed = _time_untrained(context, reference, recipe, turns)
        run.put({"recipe": recipe.model_dump(), "speed": speed.model_dump()}, "screened", f"{name}.json")
    speed = Speed.model_validate(run.read("screened", f"{name}.json")["speed"])
    return speed if speed.latency_p99_ms.low > bound else None


def _whole_meets(run: RunFolder, recipe: Recipe, p99_ms: float) -> bool:
    """Whether the undivided teacher, run in the same way, is fast enough with its whole interval."""
    runtime = (recipe.engine, recipe.precision)
    return any(
        found.recipe.untouched
        and (found.recipe.engine, found.recipe.precision) == runtime
        and found.speed.latency_p99_ms.high <= p99_ms
        for found in run.candidates()
    )


def export_untrained(context: TrialContext, recipe: Recipe, target: str) -> None:
    """Export what the distillation would start from, for the recipe's engine and precision."""
    progress.tell(f"exporting {recipe.label}, untrained", 0, 1, force=True)
    task = context.load_task(vocabulary=recipe.vocabulary)
    with tempfile.TemporaryDirectory(dir=Path(target).parent, prefix=".tmp-untrained-") as scratch:
        source = Path(scratch) / "untrained"
        build_start(context, recipe, str(source))

        def fill(folder: Path) -> None:
            export_model(
                source,
                folder,
                engine=recipe.engine,
                precision=recipe.precision,
                task=task,
                calibration=calibration_batches(task, context.data.train.inputs, context.config.seed),
                onnx_cache=source / "onnx",
            )

        storage.write_folder(Path(target), fill)


def _time_untrained(context: TrialContext, reference: Any, recipe: Recipe, turns: Turns) -> Speed:
    import ray

    name = recipe_hash(recipe)
    target = context.root / "screened" / "models" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    place = find_placement(context.config.search.serving_nodes)
    try:
        with (
            turns.hold(MEASURING),
            LedgerWriter(RunFolder(context.folder), context.config, writer=f"screen-{name}") as ledger,
            ledger.meter("search", cores=place.measuring_cores, detail=f"screen {recipe.label}"),
        ):
            exporter = ray.remote(**place.measuring_task(timed=False))(export_untrained)
            ray.get(exporter.remote(reference, recipe, str(target)))
            timed = ray.remote(**place.measuring_task(timed=True))(time_candidate)
            speed: Speed
            speed, _ = ray.get(timed.remote(reference, recipe, str(target)))
            return speed
    finally:
        shutil.rmtree(target, ignore_errors=True)
