"""`equipoise show`: any run folder, as a table or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from equipoise.runs import RunFolder


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("show", epilog="Example: equipoise show runs/demo --json")(show)


def show(
    run: Annotated[str, typer.Argument(help="Run folder, a path or URI.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a run found: candidates, frontier, choice, dollars."""
    from equipoise.runs import RunFolder

    print_summary(RunFolder(run), json)


def print_summary(run: RunFolder, as_json: bool) -> None:
    """The summary of a run, for a script or for a person."""
    from equipoise.pipeline.summary import summarize

    summary = summarize(run)
    if as_json:
        import json

        typer.echo(json.dumps(summary, indent=1))
        return
    from rich.console import Console

    console = Console()
    console.print(_table(run))
    for line in _sentences(summary):
        console.print(line, highlight=False, soft_wrap=True)


def _table(run: RunFolder) -> Any:
    from rich.table import Table

    frontier = set(run.read("frontier.json")["members"]) if run.has("frontier.json") else set()
    chosen = run.read("choice.json").get("recipe_hash") if run.has("choice.json") else None
    candidates = sorted(run.candidates(), key=lambda c: c.cost.serving_usd_per_1k)
    rps = f"{candidates[0].cost.rps:g}" if candidates else "?"
    table = Table(title=f"Candidates (validation; $/1k requests at {rps} requests/s)", title_justify="left")
    for name in ("", "recipe", "metric", "robust", "ECE", "p50 ms", "p99 ms", "req/s", "MB", "$/1k"):
        table.add_column(name, justify="left" if name in ("", "recipe") else "right", no_wrap=True)
    for c in candidates:
        mark = "choice" if c.recipe_hash == chosen else "frontier" if c.recipe_hash in frontier else ""
        mark = "teacher" if c.is_teacher else mark if c.eligible else "rejected"
        robust = f"{c.quality.robustness.value:.3f}" if c.quality.robustness else "–"
        table.add_row(
            mark,
            c.recipe.label,
            f"{c.quality.metric.value:.4f}",
            robust,
            f"{c.quality.calibration_error.value:.3f}",
            f"{c.speed.latency_p50_ms.value:.2f}",
            f"{c.speed.latency_p99_ms.value:.2f}",
            f"{c.speed.throughput_rps.value:.0f}",
            f"{c.bytes / 1e6:.1f}",
            f"{c.cost.serving_usd_per_1k:.6f}",
            style="bold" if mark == "choice" else "dim" if mark in ("", "rejected") else None,
        )
    return table


def _sentences(summary: dict[str, Any]) -> list[str]:
    choice, served = summary["choice"], summary["served"]
    found = [
        f"{summary['candidates']} candidates over {summary['structures']} structures and "
        f"{len(summary['engines'])} engines; {summary['frontier'] or 0} on the frontier, "
        f"{summary['dominated'] or 0} dominated, {summary['rejected']} rejected"
    ]
    if choice and not choice["feasible"]:
        found.append(choice["reason"])
    elif choice:
        low, high = choice["metric_drop_ci"]
        found.append(f"choice: {choice['recipe']} ({choice['reason']})")
        if "metric" in choice:
            found.append(
                f"  {choice['metric_name']} on test {choice['metric']:.4f}, teacher {choice['teacher_metric']:.4f}; "
                f"macro-F1 {choice['macro_f1']:.4f}, teacher {choice['teacher_macro_f1']:.4f}"
            )
        found.append(
            f"  drop on {choice['split']} {choice['metric_drop']:+.4f} (95% {low:+.4f} to {high:+.4f})"
        )
        found.append(
            f"  at {choice['rps']:g} requests/s: {choice['replicas']} replicas, "
            f"${choice['serving_usd_per_1k']:.6f}/1k to serve, ${choice['total_usd_per_1k']:.6f}/1k in all; "
            f"teacher {choice['teacher_replicas']} replicas, ${choice['teacher_serving_usd_per_1k']:.6f}/1k; "
            f"ratio 1/{1 / choice['cost_ratio']:.1f}"
        )
    if served:
        teacher = served["teacher"]
        found.append(
            f"served {served['rows']:,} test rows: {served['rps']:.0f} requests/s, p50 {served['p50_ms']:.1f} ms, "
            f"p99 {served['p99_ms']:.1f} ms, agreement with the bundle {served['agreement']:.2%}, "
            f"${served['usd_per_1k']:.6f}/1k by the exporter at {served['usd_per_1k_rps']:g} requests/s"
        )
        found.append(
            f"  teacher, {teacher['rows']:,} rows: {teacher['rps']:.0f} requests/s, p50 {teacher['p50_ms']:.1f} ms, "
            f"p99 {teacher['p99_ms']:.1f} ms, ${teacher['usd_per_1k']:.6f}/1k"
        )
    parts = ", ".join(f"{name} ${usd:.4f}" for name, usd in summary["ledger_usd_by_component"].items())
    found.append(
        f"this run took {summary['elapsed_s']:.0f} s and cost ${summary['ledger_usd']:.4f} ({parts})"
    )
    return found
