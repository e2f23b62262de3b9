"""`equipoise evaluate`: a model's figures on any labelled data."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from equipoise.cli.job_options import DEFAULT_NODE, Model, Node, PromptColumn, TextColumn

_SHOWN_CLASSES = 30
_SHOWN_CONFUSIONS = 5


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "evaluate",
        epilog="Example: equipoise evaluate runs/demo --data holdout.csv --json",
    )(evaluate)


def evaluate(
    model: Model,
    data: Annotated[
        str, typer.Option("--data", help="Labelled rows: a path, a URI, or sample://NAME/SPLIT.")
    ],
    out: Annotated[
        str, typer.Option("--out", help="Folder for evaluation.json and its ledger.")
    ] = "evaluation",
    text_column: TextColumn = "text",
    label_column: Annotated[str, typer.Option(help="Column that holds the label or the tags.")] = "label",
    prompt_column: PromptColumn = None,
    rows: Annotated[
        int | None, typer.Option(min=2, help="Only a stratified, seeded part of this size.")
    ] = None,
    robustness_rows: Annotated[
        int, typer.Option(min=0, help="Rows that are corrupted to measure robustness; 0 leaves it out.")
    ] = 500,
    node: Node = DEFAULT_NODE,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Print per-class precision, recall and F1, averages, confusions, robustness and calibration."""
    from equipoise.cli.progress_bar import open_progress
    from equipoise.observability.logging import default_log_file, log_to
    from equipoise.pipeline.evaluation import EvaluationSettings, evaluate

    log_to(default_log_file())
    settings = EvaluationSettings(
        text_column=text_column,
        label_column=label_column,
        prompt_column=prompt_column,
        rows=rows,
        robustness_rows=robustness_rows,
    )
    with open_progress(quiet=json) as tell:
        record = evaluate(model, data, out, settings, tell, node=node)
    if json:
        from json import dumps

        typer.echo(dumps(record, indent=1, sort_keys=True))
        return
    for line in render(record):
        typer.echo(line)
    typer.echo(f"written: {out.rstrip('/')}/evaluation.json")


def render(record: dict[str, Any]) -> list[str]:
    """The record as lines for a terminal."""
    quality = record["quality"]
    lines = [
        f"{record['rows']:,} rows of {record['data']}, {record['engine']} {record['precision']}",
        f"{quality['metric_name']:<20} {_figure(quality['metric'])}",
    ]
    if "perplexity" in record:
        lines.append(f"{'perplexity':<20} {_figure(record['perplexity'])}")
    for name, title in (("accuracy", "accuracy"), ("top5", "top-5")):
        if name in record and quality["metric_name"] != title:
            lines.append(f"{title:<20} {_figure(record[name])}")
    lines.append(f"{'calibration error':<20} {_figure(quality['calibration_error'])}")
    if quality["robustness"]:
        lines.append(
            f"{'robustness':<20} {_figure(quality['robustness'])}  worst: {quality['worst_corruption']} "
            f"({quality['worst_corruption_metric']:.4f})"
        )
    if "validation_metric" in record:
        lines.append(f"{'validation':<20} {record['validation_metric']:.4f}  gap {quality['gap']:+.4f}")
    for key, title in (("entities", "entities"), ("classes", "classes")):
        if key in record:
            lines += ["", *_table(title, record[key])]
    if record.get("confusions"):
        pairs = record["confusions"][:_SHOWN_CONFUSIONS]
        told = ", ".join(f"{pair['truth']} taken for {pair['predicted']} {pair['count']}×" for pair in pairs)
        lines += ["", f"confused most: {told}"]
    return lines


def _table(title: str, report: dict[str, Any]) -> list[str]:
    rows = list(report["classes"].items())
    rows.sort(key=lambda item: item[1]["f1"]["value"])
    shown, rest = rows[:_SHOWN_CLASSES], len(rows) - _SHOWN_CLASSES
    width = max([len(title), *(len(name) for name, _ in shown), len("weighted average")])
    lines = [f"{title:<{width}}  precision  recall      F1 (95% interval)         support"]
    averages = [(f"{name} average", report[name]) for name in ("micro", "macro", "weighted")]
    for name, figures in [*shown, *averages]:
        f1 = figures["f1"]
        lines.append(
            f"{name:<{width}}  {figures['precision']['value']:9.4f}  {figures['recall']['value']:6.4f}  "
            f"{f1['value']:6.4f} ({f1['low']:.4f} to {f1['high']:.4f})  {figures['support']:7,}"
        )
    if rest > 0:
        lines.insert(1 + len(shown), f"… {rest} classes with a higher F1 are in the record")
    return lines


def _figure(figure: dict[str, Any]) -> str:
    return f"{figure['value']:.4f} (95% {figure['low']:.4f} to {figure['high']:.4f})"
