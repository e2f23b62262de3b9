"""`equipoise show`: any run folder, as a table or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from equipoise.runs import Candidate, RunFolder

_WIDE = 124
_HASH_DIGITS = 6
_PLACES_OF_LIKELIHOODS = 6
"""A language model's are often below a hundredth."""
_COLUMNS = (
    "",
    "hash",
    "recipe",
    "metric",
    "±",
    "robust",
    "ECE",
    "p50 ms",
    "p99 ms",
    "req/s",
    "MB",
    "RAM MB",
    "$/1k",
)
_WIDE_ONLY = frozenset({"hash", "±", "robust", "ECE", "p50 ms", "MB", "RAM MB"})


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
    if not console.is_terminal:
        console = Console(width=_WIDE)
    candidates = run.candidates()
    if candidates:
        console.print(_table(run, candidates, wide=console.width >= _WIDE))
    for line in [*_spared(candidates), *_sentences(summary)]:
        console.print(line, highlight=False, soft_wrap=True)


def _table(run: RunFolder, candidates: Sequence[Candidate], wide: bool) -> Any:
    from rich.table import Table

    frontier = set(run.read("frontier.json")["members"]) if run.has("frontier.json") else set()
    chosen = run.read("choice.json").get("recipe_hash") if run.has("choice.json") else None
    candidates = sorted(candidates, key=lambda c: c.cost.serving_usd_per_1k)
    table = Table(
        title=f"Candidates on validation; $/1k requests at {candidates[0].cost.rps:g} requests/s",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    cells = [_cells(c, c.recipe_hash == chosen, c.recipe_hash in frontier) for c in candidates]
    shown = [name for name in _COLUMNS if wide or name not in _WIDE_ONLY]
    for name in shown:
        table.add_column(name, justify="left" if name in ("", "hash", "recipe") else "right", no_wrap=True)
    for row in cells:
        mark = row[""]
        style = "bold" if mark == "choice" else "dim" if mark in ("", "rejected") else None
        table.add_row(*[row[name] for name in shown], style=style)
    return table


def _cells(candidate: Candidate, chosen: bool, frontier: bool) -> dict[str, str]:
    quality, speed = candidate.quality, candidate.speed
    mark = "choice" if chosen else "teacher" if candidate.is_teacher else "frontier" if frontier else ""
    places = _PLACES_OF_LIKELIHOODS if quality.perplexity is not None else 4
    return {
        "": mark if candidate.eligible else "rejected",
        "hash": candidate.recipe_hash[:_HASH_DIGITS],
        "recipe": candidate.recipe.label,
        "metric": f"{quality.metric.value:.{places}f}",
        "±": f"{(quality.metric.high - quality.metric.low) / 2:.{places}f}",
        "robust": f"{quality.robustness.value:.3f}" if quality.robustness else "-",
        "ECE": f"{quality.calibration_error.value:.3f}",
        "p50 ms": f"{speed.latency_p50_ms.value:.2f}",
        "p99 ms": f"{speed.latency_p99_ms.value:.2f}",
        "req/s": f"{speed.throughput_rps.value:.0f}",
        "MB": f"{candidate.bytes / 1e6:.1f}",
        "RAM MB": "-" if speed.peak_memory_bytes is None else f"{speed.peak_memory_bytes / 1e6:.0f}",
        "$/1k": f"{candidate.cost.serving_usd_per_1k:.6f}",
    }


def _spared(candidates: Sequence[Candidate]) -> list[str]:
    return [
        f"{candidate.recipe_hash[:_HASH_DIGITS]} keeps in fp32: {', '.join(candidate.spared)}"
        for candidate in candidates
        if candidate.spared
    ]


def _sentences(summary: dict[str, Any]) -> list[str]:
    choice, served = summary["choice"], summary["served"]
    counted = (
        f"{summary['candidates']} candidates over {summary['structures']} structures and "
        f"{len(summary['engines'])} engines; {summary['frontier'] or 0} on the frontier, "
        f"{summary['dominated'] or 0} dominated, {summary['rejected']} rejected"
    )
    found = [
        counted if summary["candidates"] else "no candidate is measured yet",
        *([f"warning: {summary['hardware_note']}"] if summary["hardware_note"] else []),
        *([f"warning: {summary['disturbed_note']}"] if summary["disturbed_note"] else []),
        *([f"warning: {summary['memory_note']}"] if summary["memory_note"] else []),
        *summary["slower"],
    ]
    if choice and not choice["feasible"]:
        found.append(choice["reason"])
    elif choice:
        low, high = choice["metric_drop_ci"]
        places = _PLACES_OF_LIKELIHOODS if "perplexity" in choice else 4
        found.append(f"choice: {choice['recipe']} ({choice['reason']})")
        if "metric" in choice:
            found.append(
                f"  {choice['metric_name']} on test {choice['metric']:.{places}f}, "
                f"teacher {choice['teacher_metric']:.{places}f}" + _beside(choice)
            )
        found.append(
            f"  drop on {choice['split']} {choice['metric_drop']:+.{places}f} "
            f"(95% {low:+.{places}f} to {high:+.{places}f})"
        )
        found.append(
            f"  at {choice['rps']:g} requests/s: {choice['replicas']} replicas, "
            f"${choice['serving_usd_per_1k']:.6f}/1k to serve, ${choice['total_usd_per_1k']:.6f}/1k in all; "
            f"teacher {choice['teacher_replicas']} replicas, ${choice['teacher_serving_usd_per_1k']:.6f}/1k; "
            f"ratio 1/{1 / choice['cost_ratio']:.1f}"
        )
    if served:
        rate = f"{served['usd_per_1k_rps']:g}"
        found.append(
            f"served {_served(served)}, at {rate} requests/s; "
            f"{served['agreement']:.2%} of labels as in the bundle"
        )
        found.append(f"  teacher {_served(served['teacher'])}")
    parts = ", ".join(f"{name} ${usd:.4f}" for name, usd in summary["ledger_usd_by_component"].items())
    found.append(
        f"this run took {summary['elapsed_s']:.0f} s and cost ${summary['ledger_usd']:.4f} ({parts})"
    )
    found.append(_ledger(summary["ledger"]))
    return found


def _ledger(ledger: dict[str, Any]) -> str:
    if not ledger["reconciles"]:
        return "the ledger does not add up to the node-hours: see `equipoise ledger reconcile`"
    if ledger["difference"] is None:
        return "no node was metered yet"
    return (
        f"{ledger['lines']} ledger lines add up to {ledger['node_hours']:.4f} node-hours, "
        f"{ledger['difference']:.3%} off; {ledger['idle_share']:.0%} of them idle"
    )


def _beside(choice: dict[str, Any]) -> str:
    """The figure that the family's readers expect beside its metric."""
    for key, title, digits in (("macro_f1", "macro-F1", 4), ("perplexity", "perplexity", 2)):
        if key in choice:
            return f"; {title} {choice[key]:.{digits}f}, teacher {choice[f'teacher_{key}']:.{digits}f}"
    return ""


def _served(figures: dict[str, Any]) -> str:
    return (
        f"{figures['rows']:,} test rows over HTTP: {figures['rps']:.0f} requests/s, "
        f"p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms, "
        f"${figures['usd_per_1k']:.6f}/1k by the exporter"
    )
