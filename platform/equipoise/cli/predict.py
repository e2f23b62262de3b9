"""`equipoise predict`: a model over any data source."""

from __future__ import annotations

from typing import Annotated

import typer

from equipoise.cli.job_options import DEFAULT_NODE, Model, Node, PromptColumn, TextColumn


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict", epilog="Example: equipoise predict runs/demo tickets.csv predictions/")(predict)


def predict(
    model: Model,
    data: Annotated[
        str,
        typer.Argument(metavar="IN", help="Rows, unlabelled: a path, a URI, sample://NAME/SPLIT, or hf://…"),
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder for parts, bad rows and ledger.")],
    text_column: TextColumn = "text",
    prompt_column: PromptColumn = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of one core each; default: one a core.")
    ] = None,
    node: Node = DEFAULT_NODE,
    join: Annotated[str | None, typer.Option(help="Then write all answers, in order, to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Predict every row through Ray Data, in parallel; run again to go on where it stopped.

    OUT/parts holds one JSON answer a row; sorted by name, the parts are in the order of IN. Rows that
    cannot be read or predicted stand in OUT/bad with the reason.
    """
    from equipoise.cli.progress_bar import open_progress
    from equipoise.observability.logging import default_log_file, log_to
    from equipoise.ray_runtime import prepare_environment

    log_to(default_log_file())
    prepare_environment()
    from equipoise.data.streams import Columns
    from equipoise.pipeline.prediction import join_parts, predict

    with open_progress(quiet=json) as tell:
        columns = Columns(text_column, prompt=prompt_column)
        record = predict(model, data, out, columns, workers=workers, node=node, tell=tell)
    if join:
        join_parts(out, join)
    if json:
        from json import dumps

        typer.echo(dumps(record, indent=1, sort_keys=True))
        return
    typer.echo(
        f"{record['rows']:,} rows, {record['bad_rows']:,} bad ones in {out.rstrip('/')}/bad; "
        f"{record['rows_per_s']:,.0f} rows a second"
    )
