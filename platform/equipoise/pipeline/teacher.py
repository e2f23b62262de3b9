"""The teacher stage: fine-tune once, then cache its outputs."""

from __future__ import annotations

import shutil
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.pipeline.preflight import Checked
from equipoise.pipeline.session import Session
from equipoise.search.context import TrialContext
from equipoise.tasks import find_task
from equipoise.training.deepspeed_config import resolve_precision, resolve_workers
from equipoise.training.finetune import encode_examples, finetune_teacher
from equipoise.training.teacher_outputs import teacher_logits


def train_teacher(session: Session, checked: Checked) -> TrialContext:
    """Fine-tune the teacher unless it stands, and return what the trials share."""
    config, run, data, base = session.config, session.run, checked.data, checked.base
    folder = session.root / "teacher"
    if not run.has("teacher", "trained.json"):
        shutil.rmtree(folder, ignore_errors=True)
        task = find_task(config.task).create(base, data.labels, config.model.max_length)
        examples = encode_examples(task, data.train.texts, data.train.labels)
        workers = resolve_workers(config.training)
        session.display.note(
            f"{len(data.train):,} rows, {config.training.epochs:g} epochs, {workers} workers, "
            f"{resolve_precision(config.training)}, ZeRO stage {config.training.zero_stage}"
        )
        start = time.perf_counter()
        with session.ledger.meter("training", cores=workers, detail="fine-tune the teacher"):
            figures = finetune_teacher(
                config, base, examples, len(data.labels), folder, session.root / ".scratch"
            )
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
    train_logits = _outputs(session, trained["task"], data.train.texts, precision)
    validation_logits = _outputs(session, trained["task"], data.validation.texts, "fp32")
    return TrialContext(
        config=config,
        folder=run.location,
        data=data,
        task_description=trained["task"],
        train_logits=train_logits,
        validation_logits=validation_logits,
        teacher_core_s=trained["seconds"] * trained["workers"],
        revision=session.revision,
    )


def _outputs(
    session: Session, description: dict[str, Any], texts: list[str], precision: str
) -> NDArray[np.float32]:
    folder = session.root / "teacher"
    task = find_task(description["name"]).load(folder, description)
    with session.ledger.meter("training", cores=session.cores, detail="teacher outputs"):
        return teacher_logits(folder, task, texts, folder / "outputs", precision)
