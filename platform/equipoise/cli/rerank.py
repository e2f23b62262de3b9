"""`equipoise rerank`: which stored candidate is best at new prices, traffic or latency objective."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from equipoise.cli.traffic_options import Months, Node, P99Ms, Prices, Profile, Rps, Spot, cost_changes

_EXAMPLES = (
    "Example: equipoise rerank runs/demo --rps 200\n\n"
    "At new prices and a latency objective: `equipoise rerank runs/demo --prices new.yaml --p99-ms 50`"
)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rerank", epilog=_EXAMPLES)(rerank)


def rerank(
    run: Annotated[str, typer.Argument(help="Run folder with a choice, a path or URI.")],
    rps: Rps = None,
    profile: Profile = None,
    months: Months = None,
    p99_ms: P99Ms = None,
    prices: Prices = None,
    node: Node = None,
    spot: Spot = None,
    switch_hours: Annotated[
        float, typer.Option(min=0, metavar="HOURS", help="Engineer hours that a switch takes.")
    ] = 4.0,
    overlap_hours: Annotated[
        float, typer.Option(min=0, metavar="HOURS", help="Hours that old and new replicas both stand.")
    ] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank the measured candidates again at other prices, traffic or latency; nothing is trained or written.

    Prints the old choice, the new one, dollars a month saved, what switching costs and when it is paid back.
    Ends with status 3 where no candidate meets the constraints.
    """
    from equipoise.pipeline.rerank import rerank as rank
    from equipoise.runs import RunFolder
    from equipoise.search.selection import infeasible

    changes = cost_changes(
        rps=rps, profile=profile, months=months, p99_ms=p99_ms, prices=prices, node=node, spot=spot
    )
    found = rank(RunFolder(run), changes, switch_hours=switch_hours, overlap_hours=overlap_hours)
    if json:
        from json import dumps

        typer.echo(dumps(found, indent=1))
    else:
        for line in _lines(found):
            typer.echo(line)
    for note in filter(None, (found["hardware_note"], found["stale_prices"])):
        typer.echo(f"warning: {note}", err=True)
    if not found["feasible"]:
        raise infeasible(found)


def _lines(found: dict[str, Any]) -> list[str]:
    objective = f", p99 under load at most {found['p99_ms']:g} ms" if found["p99_ms"] else ""
    old, new = found["old"], found["new"]
    missed = f"; does not meet {', '.join(old['violates'])}" if old["violates"] else ""
    lines = [
        f"at {found['rps']:g} requests/s ({found['profile']}) over {found['horizon_months']:g} months"
        f"{objective}",
        f"was:  {_sentence(found['was'])}",
        f"old:  {_sentence(old)}{missed}",
    ]
    if new is None:
        return lines
    lines.append(f"new:  {_sentence(new)}")
    if not found["switch"]:
        return [*lines, "the choice stands"]
    saved = found["saved_usd_month"]
    change = f"saves ${saved:,.2f} a month" if saved >= 0 else f"meets them for ${-saved:,.2f} a month more"
    lines.append(
        f"{change}; switching costs ${found['switching_usd']:,.2f} (people "
        f"${found['switching_people_usd']:,.2f}, both fleets ${found['switching_overlap_usd']:,.2f})"
    )
    days = found["pay_back_days"]
    return [*lines, f"paid back after {days:,.1f} days"] if days is not None else lines


def _sentence(side: dict[str, Any]) -> str:
    count = side["replicas"]
    return (
        f"{side['label']} ({side['recipe_hash']}), {count} replica{'' if count == 1 else 's'} "
        f"at {side['rps']:g} requests/s, ${side['serving_usd_month']:,.2f} a month to serve, "
        f"${side['total_usd']:,.2f} in all"
    )
