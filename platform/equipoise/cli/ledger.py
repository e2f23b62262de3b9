"""`equipoise ledger`: what was metered, whether it adds up, and the same as a FOCUS bill."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from equipoise.costs.ledger_reconcile import Reconciliation
    from equipoise.runs import RunFolder

Run = Annotated[str, typer.Argument(help="Run folder, a path or URI.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Since = Annotated[
    str | None, typer.Option("--from", help="Leave out what lies before (ISO 8601; UTC without an offset).")
]
Until = Annotated[str | None, typer.Option("--to", help="Leave out what lies after.")]


class Grouping(StrEnum):
    """Columns to sum by."""

    COMPONENT = "component"
    CHARGE_CLASS = "charge_class"
    RESOURCE = "resource"
    RESOURCE_TYPE = "resource_type"
    RESOURCE_ID = "resource_id"
    WRITER = "writer"


class Period(StrEnum):
    """Lengths of a period."""

    HOUR = "hour"
    DAY = "day"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="What was metered: show it, hold it against the node-hours, export it.",
        no_args_is_help=True,
        epilog="Example: equipoise ledger reconcile runs/demo",
    )
    group.command("show", epilog="Example: equipoise ledger show runs/demo --by resource_type")(show)
    group.command("export", epilog="Example: equipoise ledger export runs/demo --focus bill.csv")(export)
    group.command("reconcile", epilog="Example: equipoise ledger reconcile runs/demo --by day")(reconcile)
    app.add_typer(group, name="ledger")


def show(
    run: Run,
    by: Annotated[Grouping, typer.Option(help="Column to sum by.")] = Grouping.COMPONENT,
    lines: Annotated[bool, typer.Option("--lines", help="Print every line as JSON instead.")] = False,
    json: Json = False,
) -> None:
    """Print the dollars that were metered, by one column."""
    folder = _open(run)
    if lines:
        from equipoise.costs.ledger import read_ledger

        for line in read_ledger(folder):
            typer.echo(line.model_dump_json())
        return
    from dataclasses import asdict

    from equipoise.costs.ledger_table import read_table
    from equipoise.costs.ledger_view import group_lines

    table = read_table(folder)
    groups = group_lines(table, by.value)
    total = sum(group.billed_usd for group in groups)
    faults = [asdict(fault) for fault in table.faults]
    if json:
        _print_json({"by": by.value, "groups": groups, "billed_usd": total, "faults": faults})
        return
    rows = [
        (
            group.name or "-",
            f"{group.lines:,}",
            f"{group.quantity:,.6g} {group.unit}",
            "-" if group.used is None else f"{group.used:,.6g}",
            f"${group.billed_usd:,.6f}",
        )
        for group in groups
    ]
    _print_table((by.value, "lines", "billed quantity", "used", "billed"), rows)
    typer.echo(f"in all ${total:,.6f}, {len(table):,} lines with those of the nodes")
    for fault in table.faults:
        typer.echo(f"left out: {fault.where}: {fault.what}", err=True)


def reconcile(
    run: Run,
    since: Since = None,
    until: Until = None,
    by: Annotated[Period, typer.Option(help="Length of a period.")] = Period.HOUR,
    tolerance: Annotated[
        float, typer.Option(help="Share of the node-hours that may be off.", min=0, max=1)
    ] = 0.001,
    bill: Annotated[
        str | None,
        typer.Option(help="Hold it against a provider's bill instead: a FOCUS file, .csv or .parquet."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Take only charges with this tag, KEY=VALUE; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Hold the lines of each period against its node-hours, or a bill; ends with 5 where they differ."""
    from equipoise.costs.ledger_reconcile import DAY_S, HOUR_S, require_reconciled
    from equipoise.costs.ledger_reconcile import reconcile as hold_against_nodes
    from equipoise.errors import ConfigError

    folder = _open(run)
    window = _window(since, until)
    if bill is not None:
        if since or until or by is not Period.HOUR:
            raise ConfigError(
                "a bill is held against the ledger over its own charge periods",
                where="--bill",
                value=bill,
                remedy="leave out --from, --to and --by, or take a bill of that time",
            )
        _reconcile_bill(folder, bill, _tags(tag or []), tolerance, json)
        return
    period_s = DAY_S if by is Period.DAY else HOUR_S
    found = hold_against_nodes(folder, **window, period_s=period_s, tolerance=tolerance)
    if json:
        _print_json(_as_json(found))
    else:
        _print_reconciliation(found)
    require_reconciled(found, folder.location)


def export(
    run: Run,
    focus: Annotated[str, typer.Option(help="File to write, a path or URI: .csv or .parquet.")],
) -> None:
    """Write what was metered as a FOCUS 1.0 data set."""
    from equipoise.costs.ledger import iterate_ledger
    from equipoise.costs.ledger_focus import export_focus

    folder = _open(run)
    rows = export_focus(iterate_ledger(folder), focus, _regions(folder))
    typer.echo(f"{rows:,} rows in {focus}")


def _regions(folder: RunFolder) -> dict[str, str]:
    """Region of each node type and storage class of the run's price book."""
    from equipoise.config import RunConfig, validate_config
    from equipoise.costs.price_book import load_prices

    if not folder.has("config.json"):
        return {}
    config = validate_config(RunConfig, folder.read("config.json"), where=folder.path("config.json"))
    book = load_prices(config.cost)
    return {name: price.region for name, price in {**book.nodes, **book.storage}.items() if price.region}


def _reconcile_bill(
    folder: RunFolder, bill: str, tags: dict[str, str], tolerance: float, as_json: bool
) -> None:
    from equipoise.costs.ledger_bill import compare_bill, read_bill, require_billed

    found = compare_bill(folder, read_bill(bill, tags), tolerance)
    if as_json:
        checks = [
            {
                **vars(check),
                "reconciles": check.difference <= tolerance,
                "difference": check.difference if check.bill_usd else None,
            }
            for check in found.checks
        ]
        _print_json(
            {
                "reconciles": not found.mismatches,
                "checks": checks,
                "unmatched_rows": found.unmatched_rows,
                "unmatched_usd": found.unmatched_usd,
            }
        )
    else:
        rows = [
            (
                check.resource,
                check.period_start[:16] + "Z",
                f"${check.bill_usd:.6f}",
                f"${check.ledger_usd:.6f}",
                f"{check.difference:.4%}",
                "ok" if check.difference <= tolerance else "OFF",
            )
            for check in found.checks
        ]
        _print_table(("resource", "from", "bill", "ledger", "off", ""), rows)
        if found.unmatched_rows:
            typer.echo(
                f"{found.unmatched_rows} charges of ${found.unmatched_usd:.6f} are for nothing that the "
                "ledger meters"
            )
    require_billed(found, bill)


def _tags(given: list[str]) -> dict[str, str]:
    from equipoise.errors import ConfigError

    for text in given:
        if "=" not in text:
            raise ConfigError("is not KEY=VALUE", where="--tag", value=text)
    return dict(text.split("=", 1) for text in given)


def _print_reconciliation(found: Reconciliation) -> None:
    rows = [
        (
            period.resource,
            period.period_start[:16] + "Z",
            f"{period.node_hours:.6f}",
            f"{period.busy_hours:.6f}",
            f"{period.idle_hours:.6f}",
            f"{period.missing_hours:.6f}",
            f"{period.excess_hours:.6f}",
            f"{period.difference:.4%}",
            "ok" if period.within(found.tolerance) else "OFF",
        )
        for period in found.periods
    ]
    head = ("resource", "from", "node-hours", "busy", "idle", "missing", "excess", "off", "")
    _print_table(head, rows)
    for fault in found.faults:
        typer.echo(f"{fault.where}: {fault.what}", err=True)
    if found.open_blocks:
        typer.echo(f"{found.open_blocks} blocks have begun and not ended: the run is at work, or was killed")
    if found.reconciles:
        typer.echo(f"{found.lines:,} lines reconcile within {found.tolerance:.2%}")


def _as_json(found: Reconciliation) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "reconciles": found.reconciles,
        "lines": found.lines,
        "tolerance": found.tolerance,
        "open_blocks": found.open_blocks,
        "faults": found.faults,
        "periods": [
            {**asdict(period), "reconciles": period.within(found.tolerance)} for period in found.periods
        ],
    }


def _open(run: str) -> RunFolder:
    """The folder, which must hold a run or at least a ledger.

    Raises:
        RunFolderError: it holds neither.
    """
    from equipoise import storage
    from equipoise.errors import RunFolderError
    from equipoise.runs import RunFolder

    folder = RunFolder(run)
    if not (folder.has("config.json") or storage.list_files(folder.path("ledger"))):
        raise RunFolderError("holds no ledger", where=folder.location, remedy="is this a run folder?")
    return folder


def _window(since: str | None, until: str | None) -> dict[str, float]:
    from equipoise.costs.ledger_reconcile import parse_moment
    from equipoise.errors import ConfigError

    found: dict[str, float] = {}
    for name, option, text in (("since", "--from", since), ("until", "--to", until)):
        if text is not None:
            try:
                found[name] = parse_moment(text)
            except ValueError:
                raise ConfigError(
                    "is no ISO 8601 time", where=option, value=text, remedy="such as 2026-11-24T23:00"
                ) from None
    return found


def _print_json(value: dict[str, Any]) -> None:
    import json
    from dataclasses import asdict, is_dataclass

    def plain(found: Any) -> Any:
        if is_dataclass(found) and not isinstance(found, type):
            return asdict(found)
        raise TypeError(type(found).__name__)

    typer.echo(json.dumps(value, indent=1, default=plain))


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for place, name in enumerate(head):
        table.add_column(name, justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
