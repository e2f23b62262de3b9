"""`equipoise run` and `equipoise demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from equipoise.config import RunConfig

Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON when done.")]
Out = Annotated[
    str | None, typer.Option("--out", help="Run folder; default: the config's output, or runs/NAME.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check config, data and model; train nothing.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("demo", epilog="Example: equipoise demo --out runs/demo")(demo)
    app.command("run", epilog="Example: equipoise run -f run.yaml --out runs/first")(run)


def demo(out: Out = None, dry_run: DryRun = False, json: Json = False) -> None:
    """Run the shipped example: R8 news topics, MiniLM, about ten minutes on two cores."""
    from equipoise.cli.shipped import shipped_config

    _execute(shipped_config("demo"), out, dry_run, json)


def run(
    file: Annotated[
        Path, typer.Option("-f", "--file", help="Run config (YAML); `equipoise init` writes one.")
    ],
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Fine-tune, search, choose, bundle, serve and price; run again to resume."""
    _execute(file, out, dry_run, json)


def _execute(file: Path, out: str | None, dry_run: bool, as_json: bool) -> None:
    from equipoise.config import load_config

    config = load_config(file)
    if dry_run:
        _check(config, out or config.run_folder)
        return
    from equipoise.cli.display import open_display
    from equipoise.cli.show import print_summary
    from equipoise.observability.logging import log_to
    from equipoise.ray_runtime import prepare_environment
    from equipoise.runs import RunFolder

    folder = RunFolder(out or config.run_folder)
    log = log_to(folder.local("logs", "equipoise.log"))
    prepare_environment()
    from equipoise.pipeline.run import run_pipeline

    with open_display(quiet=as_json) as display:
        display.note(f"run folder {folder.location}, log {log.name}")
        run_pipeline(config, folder, display)
    print_summary(folder, as_json)


def _check(config: RunConfig, folder: str) -> None:
    from equipoise.costs.price_book import load_prices
    from equipoise.data import prepare_data
    from equipoise.training.deepspeed_config import resolve_precision, resolve_workers
    from equipoise.training.pretrained import resolve_pretrained

    book = load_prices(config.cost)
    book.node(config.cost.node)
    model = resolve_pretrained(config.model.teacher)
    data = prepare_data(config)
    for sentence in data.report.sentences():
        typer.echo(sentence)
    typer.echo(
        f"teacher {model}, {resolve_workers(config.training)} workers, {resolve_precision(config.training)}; "
        f"{config.search.trials} candidates; {config.cost.rps:g} requests/s on {config.cost.node}"
    )
    typer.echo(f"would write {folder}; nothing was trained")
