"""`equipoise choose`: the cheapest measured candidate that meets these constraints."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

_LIFT = ("none", "off")
_DAYS_A_MONTH = 365 / 12
_EXAMPLE = "Example: equipoise choose runs/demo --max-drop 1% --p99-ms 20 --max-usd-month 300 --rps 50"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("choose", epilog=_EXAMPLE)(choose)


def _bound(text: str) -> float:
    """A bound as typed: a number, a percentage, or `none`, which lifts the constraint (infinity)."""
    if text.strip().lower() in _LIFT:
        return math.inf
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number, a percentage or `none`") from None
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text!r} is not a finite number")
    return value / 100 if percent else value


def choose(
    run: Annotated[str, typer.Argument(help="Run folder, a path or URI.")],
    max_drop: Annotated[
        float | None,
        typer.Option(parser=_bound, metavar="SHARE", help="Largest loss of the metric, such as 1% or 0.01."),
    ] = None,
    p99_ms: Annotated[
        float | None, typer.Option(parser=_bound, metavar="MS", help="Latency at batch 1, 99th percentile.")
    ] = None,
    max_usd_month: Annotated[
        float | None, typer.Option(parser=_bound, metavar="USD", help="Serving dollars a month.")
    ] = None,
    max_mb: Annotated[
        float | None, typer.Option(parser=_bound, metavar="MB", help="Size on disk, MB of 10^6 bytes.")
    ] = None,
    min_robustness: Annotated[
        float | None,
        typer.Option(parser=_bound, metavar="SHARE", help="Least share of the metric on corrupted input."),
    ] = None,
    rps: Annotated[
        float | None,
        typer.Option(metavar="RPS", help="Price at this many requests a second; default: the run's."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Answer what the cheapest good enough model is, from what a run measured.

    A constraint that is not given is the run config's; `none` lifts one. Nothing is measured or written.
    Ends with status 3 where no candidate meets the constraints.
    """
    from equipoise.pipeline.decision import decide
    from equipoise.runs import RunFolder
    from equipoise.search.selection import infeasible

    given = {
        "max_drop": max_drop,
        "p99_ms": p99_ms,
        "max_usd_month": max_usd_month,
        "max_mb": max_mb,
        "min_robustness": min_robustness,
    }
    changes = {
        name: None if math.isinf(bound) else bound for name, bound in given.items() if bound is not None
    }
    found = decide(RunFolder(run), changes, rps)
    if json:
        from json import dumps

        typer.echo(dumps(found, indent=1))
    elif found["feasible"]:
        for line in _answer(found):
            typer.echo(line)
    else:
        for line in _nothing(found):
            typer.echo(line)
    if found["hardware_note"]:
        typer.echo(f"warning: {found['hardware_note']}", err=True)
    if not found["feasible"]:
        raise infeasible(found)


def _answer(found: dict[str, Any]) -> list[str]:
    from equipoise.search.constraints import CONSTRAINTS

    choice, teacher = found["choice"], found["teacher"]
    keeps = found["keep_teacher"]
    lines = [
        f"{'keep the teacher' if keeps else 'choose'}: {choice['label']}  {choice['recipe_hash']}",
        f"  {found['reason']}, of {found['eligible']} eligible candidates",
        f"  {_sentence(choice, found['rps'])}",
    ]
    if teacher and not keeps:
        lines.append(f"  teacher: {_sentence(teacher, found['rps'])}")
        if not found["teacher_meets"]:
            lines.append("  the teacher itself does not meet the constraints")
        lines.append(f"  {_saving(found)}")
    if found["constraints"]:
        lines.append(f"{'constraint':<20}{'bound':>10}{'value':>10}{'95%':>22}{'margin':>10}  10% wider")
    for name, entry in found["constraints"].items():
        title, relaxed = CONSTRAINTS[name].title, found["relaxed"][name]
        bound, value, margin = (f"{_number(entry[key]):>10}" for key in ("bound", "value", "margin"))
        between = " to ".join(map(_number, entry["interval"])) if entry["interval"] else "-"
        saves = (
            f"saves ${relaxed['saves_usd']:,.2f}: {relaxed['label']}"
            if relaxed["saves_usd"] > 0
            else "saves nothing"
        )
        lines.append(f"{title:<20}{bound}{value}{between:>22}{margin}  {saves}")
    return lines


def _nothing(found: dict[str, Any]) -> list[str]:
    from equipoise.search.constraints import CONSTRAINTS

    nearest = found["nearest"]
    if nearest is None:
        return []
    lines = [
        f"nearest: {nearest['label']}  {nearest['recipe_hash']}",
        f"{'constraint':<20}{'bound':>10}{'value':>10}",
    ]
    for name, entry in nearest["constraints"].items():
        mark = {True: "  binds", False: "  missed" if name in nearest["violates"] else ""}[
            name == found["binding"]
        ]
        figures = "".join(f"{_number(entry[key]):>10}" for key in ("bound", "value"))
        lines.append(f"{CONSTRAINTS[name].title:<20}{figures}{mark}")
    for name, value in found["enough_alone"].items():
        lines.append(f"{CONSTRAINTS[name].title} of {_number(value)} alone would be enough")
    return lines


def _sentence(figures: dict[str, Any], rps: float) -> str:
    count = figures["replicas"]
    return (
        f"{figures['metric_name']} {figures['metric']['value']:.4f}, "
        f"p99 {figures['latency_p99_ms']['value']:.2f} ms, "
        f"{count} replica{'' if count == 1 else 's'} at {rps:g} requests/s, "
        f"${figures['serving_usd_month']:,.2f} a month to serve, ${figures['total_usd']:,.2f} in all"
    )


def _saving(found: dict[str, Any]) -> str:
    months, horizon = found["break_even_months"], found["horizon_months"]
    saved = f"saves ${found['saves_usd']:,.2f} over {horizon:g} months, search included"
    if months is None:
        return f"{saved}; never pays for its making"
    days = months * _DAYS_A_MONTH
    after = "within a day"
    if days >= 1:
        after = f"after {days:.0f} days" if months < 3 else f"after {months:.1f} months"
    return f"{saved}; its making is paid back {after}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if abs(value) >= 100 else f"{round(value, 6):.4g}"
