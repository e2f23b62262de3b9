"""`equipoise compare`: two candidates of a run, side by side and class by class."""

from __future__ import annotations

from typing import Annotated, Any

import typer

_SHOWN_CLASSES = 20
_ROWS = {
    "macro_f1": "macro-F1",
    "robustness": "robustness",
    "worst_corruption_metric": "worst corruption",
    "calibration_error": "calibration error",
    "gap": "train gap",
    "latency_p50_ms": "p50 ms",
    "latency_p99_ms": "p99 ms",
    "throughput_rps": "requests/s a replica",
    "bytes": "MB",
    "parameters": "M parameters",
    "replicas": "replicas",
    "serving_usd_month": "serving $ a month",
    "total_usd": "total $",
}
_MILLIONS = frozenset({"bytes", "parameters"})


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", epilog="Example: equipoise compare runs/demo teacher choice")(compare)


def compare(
    run: Annotated[str, typer.Argument(help="Run folder, a path or URI.")],
    first: Annotated[
        str, typer.Argument(help="`teacher`, `choice`, or the beginning of a hash that `show` prints.")
    ],
    second: Annotated[str, typer.Argument(help="The other one.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print two candidates side by side, each class with a paired 95% interval of what is lost or gained."""
    from equipoise.pipeline.comparing import compare
    from equipoise.runs import RunFolder

    found = compare(RunFolder(run), first, second)
    if json:
        from json import dumps

        typer.echo(dumps(found, indent=1))
        return
    for line in _lines(found):
        typer.echo(line)


def _lines(found: dict[str, Any]) -> list[str]:
    names = [f"{found[side]['label']}  {found[side]['recipe_hash']}" for side in ("first", "second")]
    lines = [f"A: {names[0]}", f"B: {names[1]}"]
    lines += [
        f"  {side} is not eligible for a choice" for side in ("A", "B") if not _of(found, side)["eligible"]
    ]
    if found["hardware_note"]:
        lines.append(f"  {found['hardware_note']}")
    lines += ["", f"{'':<22}{'A':>27}{'B':>27}{'B / A':>9}"]
    for key, title in {"metric": found["metric_name"], **_ROWS}.items():
        lines.append(_figure_line(title, found["figures"][key], 1e6 if key in _MILLIONS else 1.0))
    lines.append(f"at {found['rps']:g} requests/s; figures in brackets are 95% intervals")
    if found["metric_difference"]:
        lines.append(
            f"{found['metric_name']}, B minus A, paired by row: {_signed(found['metric_difference'])}"
        )
    said = found["predictions"]
    if said is None:
        return [*lines, "", "no predictions by row are on record for both, so nothing is paired"]
    return [*lines, "", *_class_lines(said)]


def _of(found: dict[str, Any], side: str) -> dict[str, Any]:
    record: dict[str, Any] = found["first" if side == "A" else "second"]
    return record


def _figure_line(title: str, figure: dict[str, Any], divisor: float) -> str:
    cells = []
    for value, between in zip((figure["first"], figure["second"]), figure["intervals"], strict=True):
        text = "-" if value is None else _number(value / divisor)
        if between:
            text += f" [{_number(between[0])}, {_number(between[1])}]"
        cells.append(f"{text:>27}")
    ratio = "-" if figure["ratio"] is None else f"{figure['ratio']:.3f}"
    return f"{title:<22}{''.join(cells)}{ratio:>9}"


def _class_lines(said: dict[str, Any]) -> list[str]:
    total = said["accuracy_difference"]
    classes = said["classes"]
    lines = [
        f"{said['rows']:,} rows: {said['agree']:.2%} answered alike, {said['only_first']} right in A alone, "
        f"{said['only_second']} in B alone; share right, B minus A: {_signed(total)}",
    ]
    if not classes:
        return lines
    lines.append(f"{'class':<24}{'rows':>7}{'recall A':>10}{'B':>8}{'F1 A':>8}{'B':>8}  F1, B minus A")
    for entry in classes[:_SHOWN_CLASSES]:
        figures = [*entry["recall"], *entry["f1"]]
        cells = "".join(f"{value:>{width}.3f}" for value, width in zip(figures, (10, 8, 8, 8), strict=True))
        difference = entry["f1_difference"]
        mark = " *" if difference["high"] < 0 or difference["low"] > 0 else ""
        label = entry["label"] if len(entry["label"]) < 24 else entry["label"][:22] + "…"
        lines.append(f"{label:<24}{entry['places']:>7}{cells}  {_signed(difference)}{mark}")
    if len(classes) > _SHOWN_CLASSES:
        lines.append(f"{len(classes) - _SHOWN_CLASSES} more classes, that lose less: see --json")
    lines.append(
        "* the 95% interval excludes 0; of 20 classes that do not differ, one is marked so by chance alone"
    )
    return lines


def _signed(figure: dict[str, float]) -> str:
    return f"{figure['value']:+.4f} ({figure['low']:+.4f} to {figure['high']:+.4f})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
