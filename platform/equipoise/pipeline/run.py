"""`equipoise run`: every stage in order; what is done stays done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise import ray_runtime
from equipoise.config import RunConfig, load_config
from equipoise.costs.ledger_reconcile import reconcile, require_reconciled
from equipoise.errors import EquipoiseError, InfeasibleError, InterruptedRunError, OverBudgetError
from equipoise.observability import progress
from equipoise.observability.logging import log_to
from equipoise.pipeline.choice import bundle_choice, choose, standing_choice
from equipoise.pipeline.display import Display
from equipoise.pipeline.estimating import record_actual, store_estimate
from equipoise.pipeline.preflight import Checked, check_cluster, check_port, check_run
from equipoise.pipeline.session import Session, open_session
from equipoise.runs import Candidate, Quality, RunFolder
from equipoise.tasks import find_task

if TYPE_CHECKING:
    from equipoise.search.context import TrialContext
    from equipoise.search.space import Space
    from equipoise.search.targets import Tables

_ENDINGS = {
    "trials": "the search measured all that was asked for",
    "gain": "the search stopped: its last trials gained next to no hypervolume",
    "time": "the search stopped: its time is up",
}
Stages = Callable[[Session, Checked], None]
_STAGES = ("data", "teacher", "search", "choice", "test", "report")


def run_file(file: str | Path, out: str | None, display: Display) -> RunFolder:
    """Run or resume the config in a file, into `out` or the config's own run folder."""
    ray_runtime.prepare_environment()
    config = load_config(file)
    run = RunFolder(out or config.run_folder)
    run_pipeline(config, run, display)
    return run


def run_pipeline(config: RunConfig, run: RunFolder, display: Display) -> None:
    """Run or resume a run to its end. Nothing is written before everything checkable was checked.

    At the end its ledger must add up to the node-hours.

    Raises:
        ReconcileError: it does not.
        EquipoiseError: with the exit status that its kind stands for; the folder can be resumed.
    """
    was_finished = _finished(config, run)
    run_stages(config, run, display)
    require_reconciled(reconcile(run), run.location)
    took = None if run.has("actual.json") else record_actual(run)
    if took or not was_finished:
        from equipoise.report.frontier_report import write_report

        write_report(run)  # Once more, with what the run took and cost.
    if took and took["error"] is not None:
        actual, estimated = took["total"]["actual_s"], took["total"]["estimated_s"]
        display.note(f"took {actual:.0f} s, estimated {estimated:.0f} s ({took['error']:+.0%})")


def run_stages(
    config: RunConfig, run: RunFolder, display: Display, stages: Stages | None = None, *, timed: bool = False
) -> None:
    """Check a run, open its session, start Ray, and go through the stages; by default through all.

    Args:
        timed: the given stages time something.

    Raises:
        EquipoiseError: with the exit status that its kind stands for; the folder can be resumed.
    """
    from equipoise.pipeline.endpoint import is_served

    display.stage(1, len(_STAGES), _STAGES[0])
    checked = check_run(config, run)
    serves = stages is None and is_served(find_task(config.task).layout)
    with open_session(config, run, display) as session:
        log = log_to(run.local("logs", "equipoise.log"))
        display.note(f"run folder {run.location}, log {log.relative_to(run.local())}")
        run.put(checked.data.report.model_dump(mode="json"), "data.json")
        for sentence in checked.sentences:
            display.note(sentence)
        if _finished(config, run):
            _clear(session)
            display.note("this run is finished; nothing to do")
            return
        checked = replace(checked, data=checked.data.settled(session.root / ".scratch" / "rows"))
        expected = store_estimate(run, config, checked)
        if expected is not None:
            span, whole = expected.total_s, "" if stages is None else "for the whole run, "
            earlier = f"{expected.runs} earlier run{'' if expected.runs == 1 else 's'}"
            display.note(
                f"estimated {span.value / 60:.0f} minutes ({span.low / 60:.0f} to {span.high / 60:.0f}), "
                f"{whole}from {earlier if expected.runs else 'timed steps'} on this hardware"
            )
        # On a cluster the front of an earlier run may hold it, which the test stage joins.
        if serves and not ray_runtime.is_joined():
            check_port(config.serving.host, config.serving.port, "serving.port")
        try:
            session.ray_metrics_url = ray_runtime.start_ray()["metrics_url"]
            check_cluster(config, timed=timed or stages is None, served=serves)
            session.board = progress.start_board()
            (stages or _all_stages)(session, checked)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                "interrupted", where=run.location, remedy="the same command continues where it stopped"
            ) from None
        except EquipoiseError as error:
            # Out of a Ray task it comes as a RayTaskError of its kind as well, whose message is a traceback.
            cause = getattr(error, "cause", None)
            if isinstance(cause, EquipoiseError):
                raise cause from error
            raise
        finally:
            ray_runtime.stop_ray()


def _all_stages(session: Session, checked: Checked) -> None:
    from equipoise.pipeline.endpoint import is_served
    from equipoise.pipeline.learning_curve import measure_learning_curve
    from equipoise.pipeline.served import read_test, serve_test

    context, tables = teacher_stage(session, checked)
    if session.config.cost.learning_curve:
        measure_learning_curve(session, context, checked.base)
    chosen = search_stage(session, context, tables)

    _stage(session, "choice")
    try:
        # Once the test split may have been read, the choice stands.
        choice, teacher = chosen or choose(session)
    except InfeasibleError:
        report(session)
        raise
    bundle = bundle_choice(session, context, choice)
    session.display.note(f"chosen: {choice.recipe.label}")

    _stage(session, "test")
    expected = read_test(session, context, bundle, choice, teacher)
    if is_served(context.load_task().layout):
        serve_test(session, context, bundle, teacher, expected)
    else:
        session.display.note(
            f"{session.config.task} is tested in this process; `equipoise serve` writes over HTTP"
        )

    _stage(session, "report")
    report(session)
    _clear(session)


def teacher_stage(session: Session, checked: Checked) -> tuple[TrialContext, Tables]:
    """What speed targets need to be known before it, and the teacher."""
    from equipoise.pipeline.targets import table_targets
    from equipoise.pipeline.teacher import train_teacher

    _stage(session, "teacher")
    tables = table_targets(session, checked)
    return train_teacher(session, checked), tables


def trained_space(session: Session, context: TrialContext, tables: Tables) -> Space:
    """The recipes that the search may measure, once there is a teacher."""
    from equipoise.pipeline.targets import fit_targets
    from equipoise.search.space import open_space

    family = find_task(session.config.task)
    fitted = fit_targets(session, context, tables)
    return open_space(session.config, context.teacher, family.layout, family.model_class, fitted)


def search_stage(
    session: Session, context: TrialContext, tables: Tables
) -> tuple[Candidate, Candidate] | None:
    """Measure recipes until something ends the search; where a choice stands, return it and its teacher."""
    from equipoise.search.study import run_search

    _stage(session, "search")
    chosen = standing_choice(session.run)
    if chosen is None:
        space = trained_space(session, context, tables)
        scratch = str(session.root / ".scratch")
        try:
            reason = run_search(
                context, space, scratch, lambda name: _tell_candidate(session, name), session.display.note
            )
        except OverBudgetError:
            report(session)
            raise
        session.display.note(_ENDINGS[reason])
    return chosen


def report(session: Session) -> None:
    """Write the report of what is there."""
    from equipoise.report.frontier_report import write_report

    session.ledger.flush()
    write_report(session.run)


def _clear(session: Session) -> None:
    """Remove what only an unfinished run needs: encoded rows, rows on disk, checkpoints, Ray's own state."""
    shutil.rmtree(session.root / ".scratch", ignore_errors=True)


def _finished(config: RunConfig, run: RunFolder) -> bool:
    layout = find_task(config.task).layout
    last = "test.json" if layout == "prompt" else "served.json"
    return run.has(last) and run.has("report.html")


def _stage(session: Session, name: str) -> None:
    session.display.stage(_STAGES.index(name) + 1, len(_STAGES), name)


def _metric(quality: Quality) -> str:
    """The figure that people know the family by."""
    if quality.perplexity is not None:
        return f"perplexity {quality.perplexity.value:.2f}"
    return f"{quality.metric_name} {quality.metric.value:.4f}"


def _tell_candidate(session: Session, name: str) -> None:
    candidate = Candidate.model_validate(session.run.read("candidates", f"{name}.json"))
    speed, quality = candidate.speed, candidate.quality
    verdict = "" if candidate.eligible else f"  rejected: {candidate.rejection}"
    session.display.note(
        f"{candidate.recipe.label:<38} {_metric(quality)}  "
        f"p99 {speed.latency_p99_ms.value:6.2f} ms  {speed.throughput_rps.value:7.1f}/s  "
        f"${candidate.cost.serving_usd_per_1k:.6f}/1k{verdict}"
    )
