"""`equipoise estimate`: time and dollars of a run before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from equipoise.config import RunConfig
    from equipoise.costs.estimate import Range, RunEstimate

_TITLES = {
    "teacher": "fine-tune the teacher",
    "outputs": "cache its outputs",
    "students": "distil students",
    "candidates": "export, judge, time candidates",
    "rest": "start, test, serve, report",
}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("estimate", epilog="Example: equipoise estimate -f run.yaml --json")(estimate)


def estimate(
    file: Annotated[Path, typer.Option("-f", "--file", help="Run config (YAML).")],
    out: Annotated[
        str | None, typer.Option(help="Run folder that is meant; earlier runs beside it are looked at.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a run will take in time and dollars, each with a range, before anything runs.

    From earlier runs of the same kind on the same hardware. Where there are none, a few steps of each stage
    are timed, which takes a minute or two.
    """
    from equipoise.config import load_config
    from equipoise.observability.logging import default_log_file, log_to
    from equipoise.ray_runtime import prepare_environment
    from equipoise.runs import RunFolder

    log_to(default_log_file())
    prepare_environment()
    config = load_config(file)
    run = RunFolder(out or config.run_folder)
    from equipoise.pipeline.estimating import busy_note, time_steps
    from equipoise.pipeline.estimating import estimate as predict
    from equipoise.pipeline.kept_estimates import keep_estimate
    from equipoise.pipeline.preflight import check_run
    from equipoise.pipeline.seen_runs import find_seen

    checked = check_run(config, run)
    seen = find_seen(config, run.location)
    if not seen:
        typer.echo("no earlier run of this kind on this hardware: timing a few steps of each stage", err=True)
        if note := busy_note():
            typer.echo(f"warning: {note}", err=True)
        seen = [time_steps(config, checked)]
    found = predict(config, checked, seen)
    keep_estimate(config, found)
    if json:
        typer.echo(found.model_dump_json(indent=1))
        return
    for line in _lines(found):
        typer.echo(line)


def told_line(config: RunConfig, file: Path) -> str:
    """What was told of a config before it is sent elsewhere, in one line; else the command that tells it."""
    from equipoise.pipeline.kept_estimates import told_estimate

    found = told_estimate(config)
    if found is None:
        return f"time and dollars in all: `equipoise estimate -f {file}` tells, on a machine like its own"
    span, node = found.total_s, found.node_usd
    return (
        f"estimated on hardware like this machine's ({found.fingerprint}): "
        f"{_clock(span.value)} ({_clock(span.low)} to {_clock(span.high)}), "
        f"${node.value:,.4f} (${node.low:,.4f} to ${node.high:,.4f})"
    )


def _lines(found: RunEstimate) -> list[str]:
    size = found.size
    basis = f"{found.runs} earlier run{'' if found.runs == 1 else 's'}" if found.runs else "timed steps"
    lines = [
        f"from {basis} on this hardware ({found.fingerprint}): {size.candidates} candidates, "
        f"{len(size.student_depths)} distillations"
    ]
    lines += [f"  {_TITLES[stage]:<32}{_seconds(span)}" for stage, span in found.seconds.items()]
    lines += [
        f"  {'in all':<32}{_seconds(found.total_s)}",
        f"  {'training':<32}{_usd(found.training_usd)}",
        f"  {'search':<32}{_usd(found.search_usd)}",
        f"  {'the node, idle cores included':<32}{_usd(found.node_usd)}",
    ]
    return lines


def _seconds(span: Range) -> str:
    return f"{_clock(span.value):>9}   {_clock(span.low)} to {_clock(span.high)}"


def _usd(span: Range) -> str:
    return f"{f'${span.value:,.4f}':>9}   ${span.low:,.4f} to ${span.high:,.4f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
