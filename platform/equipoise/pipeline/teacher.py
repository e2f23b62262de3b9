"""The teacher stage: fine-tune once, then cache its outputs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any

from equipoise import hardware
from equipoise.data import Rows, with_prompt
from equipoise.measurement.quality import find_truth
from equipoise.pipeline.preflight import Checked
from equipoise.pipeline.session import Session
from equipoise.placement import find_placement
from equipoise.search.context import TrialContext, encoded_folder
from equipoise.search.task_bills import bill_tasks
from equipoise.tasks import Answers, Task, find_task
from equipoise.training.deepspeed_config import resolve_precision, resolve_workers
from equipoise.training.encoding import encode_examples
from equipoise.training.finetune import finetune_teacher
from equipoise.training.teacher_outputs import teacher_answers
from equipoise.training.teacher_texts import teacher_texts


def train_teacher(session: Session, checked: Checked) -> TrialContext:
    """Fine-tune the teacher unless it stands, and return what the trials share."""
    config, run, data, base = session.config, session.run, checked.data, checked.base
    folder = session.root / "teacher"
    if not run.has("teacher", "trained.json"):
        shutil.rmtree(folder, ignore_errors=True)
        task = find_task(config.task).create(base, data.labels, config.model)
        examples = encode_examples(
            task, data.train.inputs, data.train.labels, cache=encoded_folder(session.root)
        )
        workers = resolve_workers(config.training)
        session.display.note(
            f"{len(data.train):,} rows, {config.training.epochs:g} epochs, {workers} workers, "
            f"{resolve_precision(config.training)}, ZeRO stage {config.training.zero_stage}"
        )
        start = time.perf_counter()
        with session.ledger.meter(
            "training",
            cores=workers,
            gpus=workers if hardware.describe_hardware()["gpus"] else 0,
            detail="fine-tune the teacher",
            resource_type="worker",
            resource_id="teacher/",
        ) as block:
            figures = finetune_teacher(
                config,
                base,
                examples,
                len(data.labels),
                folder,
                session.root / ".scratch",
                nodes=find_placement(config.search.serving_nodes).training,
            )
            block.worker_cpu_s = figures["worker_cpu_s"]
        task.save(folder)
        trained: dict[str, Any] = {
            **figures,
            "seconds": time.perf_counter() - start,
            "workers": workers,
            "task": task.describe(),
        }
        run.put(trained, "teacher", "trained.json")
    trained = run.read("teacher", "trained.json")
    # Students learn from outputs in the training precision; what is measured is held against fp32.
    precision = resolve_precision(config.training)
    task = find_task(config.task).load(folder, trained["task"])
    top = None if task.labels else config.distillation.top_tokens
    lessons = data.train
    if config.distillation.generated_tokens is not None:
        lessons = _written(session, task, data.train, config.distillation.generated_tokens)
    return TrialContext(
        config=config,
        folder=run.location,
        data=data,
        task_description=trained["task"],
        lessons=lessons,
        train_answers=_outputs(session, task, lessons.inputs, precision, top),
        teacher_answers=_outputs(session, task, data.validation.inputs, "fp32"),
        validation_truth=find_truth(task, data.validation.inputs, data.validation.labels),
        teacher_core_s=trained["seconds"] * trained["workers"],
        revision=session.revision,
    )


def _written(session: Session, task: Task, rows: Rows, max_tokens: int) -> Rows:
    """The training prompts, each with what the teacher writes after it; written once."""
    folder = session.root / "teacher"
    prompts = [with_prompt(value)[0] for value in rows.inputs]
    with session.ledger.meter("training", cores=session.cores, detail="teacher's texts") as block:
        bill = bill_tasks(session.ledger, block, "training", "teacher/texts", "teacher's texts")
        texts = teacher_texts(folder, task, prompts, folder / "texts", max_tokens=max_tokens, on_task=bill)
    return Rows(list(zip(prompts, texts, strict=True)), rows.labels)


def _outputs(
    session: Session, task: Task, inputs: Sequence[Any], precision: str, top: int | None = None
) -> Answers:
    folder = session.root / "teacher"
    with session.ledger.meter("training", cores=session.cores, detail="teacher outputs") as block:
        detail = f"teacher outputs, {precision}"
        bill = bill_tasks(session.ledger, block, "training", "teacher/outputs", detail)
        return teacher_answers(folder, task, inputs, folder / "outputs", precision, top, on_task=bill)
