"""`equipoise cost`: the four terms of a measured candidate at any traffic and prices."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from equipoise.cli.traffic_options import Months, Node, P99Ms, Prices, Profile, Rps, Spot, cost_changes

_EXAMPLES = (
    "Example: equipoise cost runs/demo --rps 50 --profile office-hours --months 12\n\n"
    "For any candidate, at a latency objective: `equipoise cost runs/demo --candidate 965984 --p99-ms 50`"
)
_TERMS = {
    "compute_training_usd": "training",
    "compute_search_usd": "search",
    "compute_serving_usd": "serving",
    "storage_usd": "storage",
    "data_usd": "labels",
    "maintenance_usd": "maintenance",
    "total_usd": "in all",
}
_SHOWN_RATES = 8


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cost", epilog=_EXAMPLES)(cost)


def cost(
    location: Annotated[
        str, typer.Argument(metavar="RUN|BUNDLE", help="Run folder, a path or URI, or the bundle in one.")
    ],
    rps: Rps = None,
    profile: Profile = None,
    months: Months = None,
    p99_ms: P99Ms = None,
    prices: Prices = None,
    node: Node = None,
    spot: Spot = None,
    candidate: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="`teacher`, or the beginning of a hash; default: the choice."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="HASH", help="What it is compared with; default: the teacher.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Price a measured candidate over its life: compute, storage, data, maintenance; where it breaks even.

    Nothing is measured and nothing is written.
    """
    from equipoise.pipeline.costing import cost_of

    changes = cost_changes(
        rps=rps, profile=profile, months=months, p99_ms=p99_ms, prices=prices, node=node, spot=spot
    )
    found = cost_of(location, candidate, against, changes)
    if json:
        from json import dumps

        typer.echo(dumps(found, indent=1))
    else:
        for line in _lines(found):
            typer.echo(line)
    for note in filter(None, (found["hardware_note"], found["stale_prices"])):
        typer.echo(f"warning: {note}", err=True)


def _lines(found: dict[str, Any]) -> list[str]:
    traffic, sides = found["traffic"], [found["candidate"]] + ([found["against"]] if found["against"] else [])
    objective = f", p99 under load at most {traffic['p99_ms']:g} ms" if traffic["p99_ms"] else ""
    market = " (spot)" if traffic["spot"] else ""
    lines = [
        f"{traffic['rps']:g} requests/s on average ({traffic['profile']}) over "
        f"{traffic['horizon_months']:g} months on {traffic['node']}{market}{objective}",
        "",
        _row("", [side["label"] for side in sides]),
        _row("", ["teacher" if side["is_teacher"] else side["recipe_hash"] for side in sides]),
    ]
    terms = [side["terms"] for side in sides]
    lines += [_row(title, [f"${term[key]:,.4f}" for term in terms]) for key, title in _TERMS.items()]
    lines += [
        _row("replicas, busiest hour", [str(term["replicas"]) for term in terms]),
        _row("replicas on average", [f"{term['mean_replicas']:.2f}" for term in terms]),
        _row("serving $ a month", [f"${term['serving_usd_month']:,.2f}" for term in terms]),
        _row("serving $/1k requests", [f"${term['serving_usd_per_1k']:.6f}" for term in terms]),
        _row("in all $/1k requests", [f"${term['total_usd_per_1k']:.6f}" for term in terms]),
        "",
    ]
    lines += [_unkept(side, traffic) for side in sides if side["keeps_p99"] is False]
    lines.append(_idle(found["candidate"], traffic))
    if found["break_even"]:
        lines.append(found["break_even"]["sentence"])
    lines += [_step(step) for step in found["labels_buy"] or []]
    lines += ["", "requests/s   replicas  serving $/1k   in all $/1k"]
    lines += [
        f"{point['rps']:>10.4g} {point['mean_replicas']:>10.2f} {point['serving_usd_per_1k']:>13.6f} "
        f"{point['total_usd_per_1k']:>13.6f}"
        for point in _shown(found["load_curve"], traffic["rps"])
    ]
    return lines


def _row(title: str, cells: list[str]) -> str:
    return f"{title:<24}" + "".join(f"{cell:>32}" for cell in cells)


def _unkept(side: dict[str, Any], traffic: dict[str, Any]) -> str:
    return f"{side['label']}: no number of replicas keeps p99 under {traffic['p99_ms']:g} ms; priced without"


def _idle(side: dict[str, Any], traffic: dict[str, Any]) -> str:
    nodes = f"{side['nodes']} node{'' if side['nodes'] == 1 else 's'} of {traffic['node']}"
    idle = side["terms"]["node_idle_usd_month"]
    return (
        f"in the busiest hour it takes {nodes}; what it leaves idle on its nodes costs ${idle:,.2f} a month"
    )


def _step(step: dict[str, Any]) -> str:
    label, compute = step["points_per_label_usd"], step["points_per_compute_usd"]
    training = f"; ${step['compute_usd']:,.4f} of training, {compute:,.4g} points a dollar" if compute else ""
    return (
        f"from {step['rows_before']:,} labels to {step['rows']:,}: {step['points']:+.2f} points for "
        f"${step['label_usd']:,.2f} of labels, {label:,.4g} points a dollar{training}"
    )


def _shown(points: list[dict[str, float]], rps: float) -> list[dict[str, float]]:
    """A few of the curve's points, evenly, that of the stated rate among them."""
    step = max(1, len(points) // _SHOWN_RATES)
    return [point for index, point in enumerate(points) if index % step == 0 or point["rps"] == rps]
