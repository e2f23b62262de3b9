"""The learning curve: the teacher on a part of the labels, measured on validation like the whole one."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from equipoise.costs.data_lever import LearningPoint
from equipoise.data.layout import stratum
from equipoise.data.rows import Rows
from equipoise.data.splits import stratified_sample
from equipoise.measurement.quality import measure_quality
from equipoise.pipeline.session import Session
from equipoise.runs import Figure
from equipoise.search.context import TrialContext
from equipoise.tasks import Answers, find_task
from equipoise.training.deepspeed_config import resolve_workers
from equipoise.training.encoding import encode_examples
from equipoise.training.finetune import finetune_teacher
from equipoise.training.teacher_outputs import teacher_answers

_SHARES = (0.25, 0.5)


def measure_learning_curve(session: Session, context: TrialContext, base: Path) -> None:
    """Put `learning_curve.json`, unless it stands: the metric at a quarter, half and all of the labels.

    The parts are stratified, seeded and nested. They are trained as the teacher is, with the same epochs,
    and thrown away.

    Args:
        session: the run, whose ledger is charged.
        context: the teacher on all labels.
        base: the pretrained model that it started from.
    """
    if session.run.has("learning_curve.json"):
        return
    part, points = context.data.train, []
    for share in sorted(_SHARES, reverse=True):
        wanted = max(1, round(share * len(context.data.train)))
        strata = [stratum(label) for label in part.labels]
        part = part.select(stratified_sample(strata, wanted, session.config.seed))
        points.append(_train_on(session, context, base, part))
    whole = LearningPoint(
        rows=len(context.data.train),
        metric=_metric(session, context, context.teacher_answers),
        core_s=context.teacher_core_s,
    )
    points = [*reversed(points), whole]
    session.run.put({"points": [point.model_dump(mode="json") for point in points]}, "learning_curve.json")


def _train_on(session: Session, context: TrialContext, base: Path, part: Rows) -> LearningPoint:
    config, workers = session.config, resolve_workers(session.config.training)
    folder = session.root / ".scratch" / "learning-curve"
    shutil.rmtree(folder, ignore_errors=True)
    session.display.note(f"learning curve: {len(part):,} of {len(context.data.train):,} labels")
    task = find_task(config.task).create(base, context.data.labels, config.model)
    examples = encode_examples(task, part.inputs, part.labels, cache=folder / "encoded")
    start = time.perf_counter()
    with session.ledger.meter("training", cores=workers, detail=f"learning curve, {len(part)} labels"):
        finetune_teacher(
            config, base, examples, len(context.data.labels), folder / "teacher", folder / "scratch"
        )
    core_s = (time.perf_counter() - start) * workers
    task.save(folder / "teacher")
    with session.ledger.meter("training", cores=session.cores, detail="learning curve, validation"):
        answers = teacher_answers(
            folder / "teacher", task, context.data.validation.inputs, folder / "outputs"
        )
    metric = _metric(session, context, answers)
    shutil.rmtree(folder, ignore_errors=True)
    return LearningPoint(rows=len(part), metric=metric, core_s=core_s)


def _metric(session: Session, context: TrialContext, answers: Answers) -> Figure:
    return measure_quality(
        answers,
        context.validation_truth,
        task=context.load_task(),
        rows=len(context.data.validation),
        temperature=1.0,
        resamples=session.config.measurement.resamples,
        seed=session.config.seed,
    ).metric
