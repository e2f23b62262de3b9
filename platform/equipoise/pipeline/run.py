"""`equipoise run`: every stage in order; what is done stays done."""

from __future__ import annotations

from equipoise import ray_runtime
from equipoise.config import RunConfig
from equipoise.data import PreparedData
from equipoise.errors import InfeasibleError
from equipoise.observability import progress
from equipoise.pipeline.choice import bundle_choice, choose
from equipoise.pipeline.display import Display
from equipoise.pipeline.session import Session, open_session
from equipoise.runs import Candidate, RunFolder

_STAGES = ("data", "teacher", "search", "choice", "test", "report")


def run_pipeline(config: RunConfig, run: RunFolder, display: Display) -> None:
    """Run or resume a run to its end.

    Raises:
        EquipoiseError: with the exit status that its kind stands for; the folder can be resumed.
    """
    with open_session(config, run, display) as session:
        _stage(session, "data")
        data = _prepare(session)
        if _finished(session):
            display.note("this run is finished; nothing to do")
            return
        started = ray_runtime.start_ray()
        session.ray_metrics_url = started["metrics_url"]
        try:
            progress.start_board()
            _run_stages(session, data)
        finally:
            ray_runtime.stop_ray()


def _run_stages(session: Session, data: PreparedData) -> None:
    from equipoise.pipeline.served import read_test, serve_test
    from equipoise.pipeline.teacher import train_teacher
    from equipoise.search.space import Space
    from equipoise.search.study import run_search
    from equipoise.training.initialization import teacher_depth

    _stage(session, "teacher")
    context = train_teacher(session, data)

    _stage(session, "search")
    space = Space(session.config.search, teacher_depth(context.teacher))
    run_search(context, space, str(session.root / ".scratch"), lambda name: _tell_candidate(session, name))

    _stage(session, "choice")
    try:
        choice, teacher = choose(session, context)
    except InfeasibleError:
        _report(session)
        raise
    bundle = bundle_choice(session, context, choice)
    session.display.note(f"chosen: {choice.recipe.label}")

    _stage(session, "test")
    expected = read_test(session, context, bundle, choice, teacher)
    serve_test(session, context, bundle, teacher, expected)

    _stage(session, "report")
    _report(session)


def _prepare(session: Session) -> PreparedData:
    from equipoise.data import prepare_data

    data = prepare_data(session.config)
    session.run.put(data.report.model_dump(mode="json"), "data.json")
    for sentence in data.report.sentences():
        session.display.note(sentence)
    return data


def _report(session: Session) -> None:
    from equipoise.report.frontier_report import write_report

    session.ledger.flush()
    write_report(session.run)


def _finished(session: Session) -> bool:
    return session.run.has("served.json") and session.run.has("report.html")


def _stage(session: Session, name: str) -> None:
    session.display.stage(_STAGES.index(name) + 1, len(_STAGES), name)


def _tell_candidate(session: Session, name: str) -> None:
    candidate = Candidate.model_validate(session.run.read("candidates", f"{name}.json"))
    speed, quality = candidate.speed, candidate.quality
    verdict = "" if candidate.eligible else f"  rejected: {candidate.rejection}"
    session.display.note(
        f"{candidate.recipe.label:<38} {quality.metric_name} {quality.metric.value:.4f}  "
        f"p99 {speed.latency_p99_ms.value:6.2f} ms  {speed.throughput_rps.value:7.1f}/s  "
        f"${candidate.cost.serving_usd_per_1k:.6f}/1k{verdict}"
    )
