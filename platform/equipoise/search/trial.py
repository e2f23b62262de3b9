"""One trial: a recipe is trained, exported, measured, priced and put on record."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.compression.structure import recipe_hash, structure_key
from equipoise.costs.capacity import plan_capacity
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import load_prices
from equipoise.measurement.quality import paired_drop
from equipoise.placement import find_placement, this_node
from equipoise.runs import Candidate, Recipe, RunFolder
from equipoise.runs.predictions import Predictions, put_predictions
from equipoise.search.context import TrialContext, encoded_folder, states_folder
from equipoise.search.measured import build_and_judge, rejection, time_candidate
from equipoise.search.quantized_training import PRECISION, train_for_int8
from equipoise.search.starts import read_kept, starting_folder
from equipoise.search.task_bills import bill_tasks
from equipoise.search.turns import ALONE, MEASURING, TRAINING, Turns
from equipoise.training.deepspeed_config import resolve_workers
from equipoise.training.encoding import encode_examples
from equipoise.training.examples import Examples
from equipoise.training.finetune import distill_student
from equipoise.training.state_cache import add_states
from equipoise.training.workers import trains_on_gpus


def measure_recipe(context: TrialContext, reference: Any, recipe: Recipe, turns: Turns = ALONE) -> Candidate:
    """The recipe's candidate record: read where it stands, otherwise made and put.

    Args:
        reference: object reference to `context`, which the Ray tasks below are handed.
        turns: of the search's trials, where several run at once.
    """
    import ray

    run = RunFolder(context.folder)
    name = recipe_hash(recipe)
    if run.has("candidates", f"{name}.json"):
        return Candidate.model_validate(run.read("candidates", f"{name}.json"))
    place = find_placement(context.config.search.serving_nodes)
    cores = place.measuring_cores
    with LedgerWriter(run, context.config, writer=f"trial-{name}") as ledger:
        source, trained_s = train_structure(context, recipe, ledger, turns)
        if recipe.precision == PRECISION:
            source, more_s = train_for_int8(context, recipe, source, ledger, turns)
            trained_s += more_s
        target = context.root / "models" / name
        # Judged where it is timed: what int8 answers depends on a CPU's instructions too.
        with (
            turns.hold(MEASURING),
            ledger.meter(
                "search", cores=cores, detail=f"export and judge {recipe.label}", resource_id=f"{name}/judge"
            ) as block,
        ):
            judge = ray.remote(**place.measuring_task(timed=False))(_with_cpu)
            judged, block.used_core_seconds, judged_on = ray.get(
                judge.remote(build_and_judge, reference, recipe, str(source), str(target))
            )
        with (
            turns.hold(MEASURING),
            ledger.meter(
                "search", cores=cores, detail=f"time {recipe.label}", resource_id=f"{name}/time"
            ) as block,
        ):
            start = time.perf_counter()
            timed = ray.remote(**place.measuring_task(timed=True))(_with_cpu)
            (speed, machine), block.used_core_seconds, timed_on = ray.get(
                timed.remote(time_candidate, reference, recipe, str(target))
            )
            judged["seconds"]["speed"] = time.perf_counter() - start
    reason = rejection(judged["agreement"], recipe, context)
    student_core_s = trained_s * resolve_workers(context.config.training)
    candidate = Candidate(
        recipe_hash=name,
        recipe=recipe,
        is_teacher=recipe.untouched and (recipe.engine, recipe.precision) == ("torch", "fp32"),
        eligible=reason is None,
        rejection=reason,
        quality=judged["quality"],
        speed=speed,
        agreement=judged["agreement"],
        cost=price_candidate(
            cost=context.config.cost,
            book=load_prices(context.config.cost),
            throughput_rps=speed.throughput_rps.value,
            capacity=plan_capacity(speed, context.config.cost),
            stored_bytes=judged["bytes"],
            training_core_seconds=context.teacher_core_s + student_core_s,
            search_core_seconds=0.0,
            labelled_rows=len(context.data.train) + len(context.data.validation),
        ),
        bytes=judged["bytes"],
        parameters=_count_parameters(source),
        metric_drop=paired_drop(
            context.load_task(),
            context.teacher_answers,
            judged["answers"],
            context.validation_truth,
            rows=len(context.data.validation),
            resamples=context.config.measurement.resamples,
            seed=context.config.seed,
        ),
        hardware=machine,
        seed=context.config.seed,
        revision=context.revision,
        spared=judged["spared"],
        seconds={"train": trained_s, **judged["seconds"]},
        nodes={"train": _trained_on(run, recipe), "quality": (judged_on,), "speed": (timed_on,)},
        measured_at=datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="milliseconds"),
    )
    if context.data.labels:
        # Before the record: a candidate that stands has its predictions.
        answers = judged["answers"]
        put_predictions(
            run, name, Predictions.of(answers.row_of, context.validation_truth, answers.predicted)
        )
    run.put(candidate.model_dump(mode="json"), "candidates", f"{name}.json")
    return candidate


def train_structure(
    context: TrialContext, recipe: Recipe, ledger: LedgerWriter, turns: Turns = ALONE
) -> tuple[Path, float]:
    """The structure's torch model folder, trained once, and the seconds that took.

    Another trial that needs the same structure waits, and finds it trained.
    """
    if recipe.untouched:
        return context.teacher, 0.0
    run = RunFolder(context.folder)
    key = structure_key(recipe)
    folder = context.root / "students" / key
    with turns.hold(key):
        if not recipe.distilled:
            if not folder.is_dir():
                folder.parent.mkdir(exist_ok=True)
                with turns.hold(TRAINING):
                    starting_folder(context, recipe, ledger).rename(folder)
            return folder, 0.0
        if not run.has("students", key, "trained.json"):
            with turns.hold(TRAINING):
                _distil(context, recipe, ledger, folder, turns)
    return folder, float(run.read("students", key, "trained.json")["seconds"])


def _distil(context: TrialContext, recipe: Recipe, ledger: LedgerWriter, folder: Path, turns: Turns) -> None:
    run, key = RunFolder(context.folder), folder.name
    pruned = recipe.narrowed or recipe.vocabulary == "task" or recipe.sparsity > 0
    start_folder = starting_folder(context, recipe, ledger) if pruned else None
    # The caches of pieces and of encoded rows are written by one trial at a time.
    with turns.hold("rows"):
        kept = read_kept(context) if recipe.vocabulary == "task" else None
        task = context.load_task(vocabulary=recipe.vocabulary)
        with ledger.meter(
            "search", cores=0, detail="encode", resource_type="trial", resource_id=key
        ) as block:
            lessons = context.lessons
            examples, block.used_core_seconds, _ = _with_cpu(
                encode_examples,
                task,
                lessons.inputs,
                lessons.labels,
                context.train_answers,
                encoded_folder(context.root),
            )
        if context.config.distillation.guided:
            examples = _with_states(context, recipe, ledger, examples, kept)
    shutil.rmtree(folder, ignore_errors=True)
    workers = resolve_workers(context.config.training)
    start = time.perf_counter()
    with ledger.meter(
        "search",
        cores=workers,
        gpus=workers if trains_on_gpus(context.config.training) else 0,
        detail=f"distill {recipe.structure}",
        resource_type="worker",
        resource_id=f"{key}/",
    ) as block:
        figures = distill_student(
            context.config,
            context.teacher,
            recipe.layers,
            examples,
            folder,
            context.root / ".scratch",
            start=start_folder,
            teacher_ids=kept,
            sparse=recipe.sparsity > 0,
            recovery=recipe.recovery,
            nodes=find_placement(context.config.search.serving_nodes).training,
        )
        block.worker_cpu_s = figures["worker_cpu_s"]
    trained = {**figures, "seconds": time.perf_counter() - start, "workers": workers}
    run.put(trained, "students", key, "trained.json")
    if start_folder is not None:
        shutil.rmtree(start_folder, ignore_errors=True)


def _with_states(
    context: TrialContext,
    recipe: Recipe,
    ledger: LedgerWriter,
    examples: Examples,
    teacher_ids: Sequence[int] | None,
) -> Examples:
    name = "teacher's hidden states"
    with ledger.meter("search", cores=0, detail=name, resource_id="teacher/states") as block:
        return add_states(
            context.config,
            context.teacher,
            recipe.layers,
            examples,
            states_folder(context.root),
            teacher_ids=teacher_ids,
            on_task=bill_tasks(ledger, block, "search", "teacher/states", name),
            nodes=find_placement(context.config.search.serving_nodes).training,
        )


def _trained_on(run: RunFolder, recipe: Recipe) -> tuple[str, ...]:
    """Nodes of the structure's training workers; empty where it was not trained in the search."""
    if not recipe.distilled:
        return ()
    trained = run.read("students", structure_key(recipe), "trained.json")
    return tuple(dict.fromkeys(name[:8] for name in trained.get("worker_nodes", ())))


def _with_cpu(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, str]:
    """What a function returns, the CPU seconds that this process spent on it, and the process's node."""
    begun = time.process_time()
    found = function(*arguments)
    return found, time.process_time() - begun, this_node()


def _count_parameters(folder: Path) -> int:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        return int(sum(np.prod(weights.get_slice(name).get_shape()) for name in list(weights.keys())))
