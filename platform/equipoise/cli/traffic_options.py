"""Options by which a command prices at other traffic and prices than the run's."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Rps = Annotated[
    float | None,
    typer.Option(metavar="RPS", help="Requests a second on average; default: the run's, or the CSV's."),
]
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|CSV", help="constant, diurnal, office-hours, bursts, or a CSV of measured arrivals."
    ),
]
Months = Annotated[float | None, typer.Option(metavar="MONTHS", help="Months that are priced.")]
P99Ms = Annotated[
    float | None, typer.Option("--p99-ms", metavar="MS", help="Latency objective under load; 0 lifts it.")
]
Prices = Annotated[
    str | None, typer.Option(metavar="YAML", help="Price book laid over the shipped one, for the run's.")
]
Node = Annotated[str | None, typer.Option(metavar="NODE", help="Node type of the price book that serves.")]
Spot = Annotated[
    bool | None, typer.Option("--spot/--on-demand", help="Serve at the node's spot price, or not.")
]


def cost_changes(
    *,
    rps: float | None,
    profile: str | None,
    months: float | None,
    p99_ms: float | None,
    prices: str | None,
    node: str | None,
    spot: bool | None,
) -> dict[str, Any]:
    """The keys of the `cost` section that options were given for."""
    given: dict[str, Any] = {
        "rps": rps,
        "profile": profile,
        "horizon_months": months,
        "prices": prices,
        "node": node,
        "spot": spot,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if p99_ms is not None:
        changes["p99_ms"] = p99_ms or None
    return changes
