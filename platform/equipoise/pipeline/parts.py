"""`--until`: a run that ends after one of its parts; run again without it, it goes on from there."""

from __future__ import annotations

from typing import Literal

from equipoise.config import RunConfig
from equipoise.costs.ledger_reconcile import reconcile, require_reconciled
from equipoise.errors import ConfigError
from equipoise.pipeline.display import Display
from equipoise.pipeline.preflight import Checked
from equipoise.pipeline.run import Stages, report, run_stages, search_stage, teacher_stage, trained_space
from equipoise.pipeline.session import Session
from equipoise.pipeline.targets import has_targets
from equipoise.runs import Recipe, RunFolder
from equipoise.search.space import Space, open_space
from equipoise.tasks import find_task

Part = Literal["finetune", "distill", "search"]


def run_until(config: RunConfig, run: RunFolder, display: Display, part: Part) -> None:
    """Run or resume a run until a part of it stands: the teacher, one student, or every candidate.

    The student is the first that the search would train.

    Raises:
        ConfigError: a student is asked for, and the config has none.
        ReconcileError: the ledger does not add up to the node-hours.
        EquipoiseError: with the exit status that its kind stands for; the folder can be resumed.
    """
    run_stages(config, run, display, _PARTS[part], timed=part == "search" or has_targets(config))
    require_reconciled(reconcile(run), run.location)


def _finetune(session: Session, checked: Checked) -> None:
    teacher_stage(session, checked)
    _say(session, "the teacher is in teacher/")


def _distill(session: Session, checked: Checked) -> None:
    from equipoise.search.trial import train_structure

    check_part(session.config, checked, "distill")
    context, tables = teacher_stage(session, checked)
    student = first_student(trained_space(session, context, tables))
    folder, _ = train_structure(context, student, session.ledger)
    session.ledger.flush()
    _say(session, f"the student of {student.structure} is in students/{folder.name}/")


def _search(session: Session, checked: Checked) -> None:
    context, tables = teacher_stage(session, checked)
    search_stage(session, context, tables)
    report(session)
    _say(session, f"{len(session.run.candidates())} candidates are measured")


def check_part(config: RunConfig, checked: Checked, part: Part | None) -> None:
    """Check what a part needs beside a run that can start.

    Raises:
        ConfigError: a student is asked for, and the config has none.
    """
    if part == "distill":
        family = find_task(config.task)
        first_student(open_space(config, checked.base, family.layout, family.model_class))


def first_student(space: Space) -> Recipe:
    """The first that the search would train.

    Raises:
        ConfigError: every recipe keeps the whole teacher.
    """
    found = next((recipe for recipe in space.anchors() if recipe.distilled), None)
    if found is None:
        raise ConfigError(
            "the config names no student to distil: every recipe keeps the whole teacher",
            where="search.depths",
            remedy=f"name a depth below its {space.teacher_depth} layers, or end with --until finetune",
        )
    return found


def _say(session: Session, what: str) -> None:
    session.display.note(f"{what}; the same run without --until goes on from there")


_PARTS: dict[Part, Stages] = {"finetune": _finetune, "distill": _distill, "search": _search}
