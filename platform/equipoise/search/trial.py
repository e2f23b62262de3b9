"""One trial: a recipe is trained, exported, measured, priced and put on record."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from equipoise import hardware
from equipoise.compression.structure import recipe_hash, structure_key
from equipoise.costs.capacity import plan_capacity
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import load_prices
from equipoise.measurement.quality import paired_drop
from equipoise.ray_runtime import MEASURED_SLOT, whole_node_cores
from equipoise.runs import Candidate, Recipe, RunFolder
from equipoise.runs.predictions import Predictions, put_predictions
from equipoise.search.context import TrialContext, encoded_folder
from equipoise.search.measured import build_and_judge, rejection, time_candidate
from equipoise.search.quantized_training import PRECISION, train_for_int8
from equipoise.search.starts import read_kept, starting_folder
from equipoise.training.deepspeed_config import resolve_workers
from equipoise.training.encoding import encode_examples
from equipoise.training.finetune import distill_student


def measure_recipe(context: TrialContext, reference: Any, recipe: Recipe) -> Candidate:
    """The recipe's candidate record: read where it stands, otherwise made and put.

    Args:
        reference: object reference to `context`, which the Ray tasks below are handed.
    """
    import ray

    run = RunFolder(context.folder)
    name = recipe_hash(recipe)
    if run.has("candidates", f"{name}.json"):
        return Candidate.model_validate(run.read("candidates", f"{name}.json"))
    cores = whole_node_cores()
    with LedgerWriter(run, context.config, writer=f"trial-{name}") as ledger:
        source, trained_s = train_structure(context, recipe, ledger)
        if recipe.precision == PRECISION:
            source, more_s = train_for_int8(context, recipe, source, ledger)
            trained_s += more_s
        target = context.root / "models" / name
        with ledger.meter(
            "search", cores=cores, detail=f"export and judge {recipe.label}", resource_id=f"{name}/judge"
        ) as block:
            # DEFAULT: outside the trial's placement group, which holds no CPUs.
            judge = ray.remote(num_cpus=cores, max_retries=1, scheduling_strategy="DEFAULT")(_with_cpu)
            judged, block.used_core_seconds = ray.get(
                judge.remote(build_and_judge, reference, recipe, str(source), str(target))
            )
        with ledger.meter(
            "search", cores=cores, detail=f"time {recipe.label}", resource_id=f"{name}/time"
        ) as block:
            start = time.perf_counter()
            timed = ray.remote(
                num_cpus=cores,
                resources={MEASURED_SLOT: 1},
                max_retries=1,
                scheduling_strategy="DEFAULT",
            )(_with_cpu)
            speed, block.used_core_seconds = ray.get(
                timed.remote(time_candidate, reference, recipe, str(target))
            )
            judged["seconds"]["speed"] = time.perf_counter() - start
    reason = rejection(judged["agreement"], recipe, context)
    machine = hardware.describe_hardware()
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
        hardware={**machine, "fingerprint": hardware.fingerprint(machine)},
        seed=context.config.seed,
        revision=context.revision,
        spared=judged["spared"],
        seconds={"train": trained_s, **judged["seconds"]},
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


def train_structure(context: TrialContext, recipe: Recipe, ledger: LedgerWriter) -> tuple[Path, float]:
    """The structure's torch model folder, trained once, and the seconds that took."""
    if recipe.untouched:
        return context.teacher, 0.0
    run = RunFolder(context.folder)
    key = structure_key(recipe)
    folder = context.root / "students" / key
    if not recipe.distilled:
        if not folder.is_dir():
            folder.parent.mkdir(exist_ok=True)
            starting_folder(context, recipe, ledger).rename(folder)
        return folder, 0.0
    if not run.has("students", key, "trained.json"):
        pruned = recipe.narrowed or recipe.vocabulary == "task" or recipe.sparsity > 0
        start_folder = starting_folder(context, recipe, ledger) if pruned else None
        kept = read_kept(context) if recipe.vocabulary == "task" else None
        task = context.load_task(vocabulary=recipe.vocabulary)
        with ledger.meter(
            "search", cores=0, detail="encode", resource_type="trial", resource_id=key
        ) as block:
            lessons = context.lessons
            examples, block.used_core_seconds = _with_cpu(
                encode_examples,
                task,
                lessons.inputs,
                lessons.labels,
                context.train_answers,
                encoded_folder(context.root),
            )
        shutil.rmtree(folder, ignore_errors=True)
        workers = resolve_workers(context.config.training)
        start = time.perf_counter()
        with ledger.meter(
            "search",
            cores=workers,
            gpus=workers if hardware.describe_hardware()["gpus"] else 0,
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
            )
            block.worker_cpu_s = figures["worker_cpu_s"]
        trained = {**figures, "seconds": time.perf_counter() - start, "workers": workers}
        run.put(trained, "students", key, "trained.json")
        if start_folder is not None:
            shutil.rmtree(start_folder, ignore_errors=True)
    return folder, float(run.read("students", key, "trained.json")["seconds"])


def _with_cpu(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns, and the CPU seconds that this process spent on it."""
    begun = time.process_time()
    found = function(*arguments)
    return found, time.process_time() - begun


def _count_parameters(folder: Path) -> int:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        return int(sum(np.prod(weights.get_slice(name).get_shape()) for name in list(weights.keys())))
