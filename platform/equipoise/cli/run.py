"""`equipoise run` and `equipoise demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equipoise.cli.until import Part, Until

Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON when done.")]
Out = Annotated[
    str | None, typer.Option("--out", help="Run folder; default: the config's output, or runs/NAME.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check config, data and model; train nothing.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("demo", epilog="Example: equipoise demo --out runs/demo")(demo)
    app.command("run", epilog="Example: equipoise run -f run.yaml --out runs/first --until finetune")(run)


def demo(out: Out = None, dry_run: DryRun = False, json: Json = False) -> None:
    """Run the shipped example: R8 news topics, MiniLM, about ten minutes on two cores."""
    from equipoise.cli.shipped import shipped_config

    _execute(shipped_config("demo"), out, dry_run, json)


def run(
    file: Annotated[
        Path, typer.Option("-f", "--file", help="Run config (YAML); `equipoise init` writes one.")
    ],
    out: Out = None,
    until: Until = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Fine-tune, search, choose, bundle, serve and price; run again to resume."""
    _execute(file, out, dry_run, json, until)


def _execute(file: Path, out: str | None, dry_run: bool, as_json: bool, until: Part | None = None) -> None:
    from equipoise.config import load_config
    from equipoise.runs import RunFolder

    config = load_config(file)
    folder = RunFolder(out or config.run_folder)
    from equipoise.observability.logging import default_log_file, log_to

    log_to(default_log_file())
    if dry_run:
        from equipoise.pipeline.parts import check_part
        from equipoise.pipeline.preflight import check_run

        checked = check_run(config, folder)
        check_part(config, checked, until.value if until else None)
        for sentence in checked.sentences:
            typer.echo(sentence)
        typer.echo(f"would write {folder.location}; nothing was trained")
        return
    from equipoise.cli.display import open_display
    from equipoise.cli.show import print_summary
    from equipoise.ray_runtime import prepare_environment

    prepare_environment()
    from equipoise.pipeline.parts import run_until
    from equipoise.pipeline.run import run_pipeline

    with open_display(quiet=as_json) as display:
        if until is None:
            run_pipeline(config, folder, display)
        else:
            run_until(config, folder, display, until.value)
    print_summary(folder, as_json)
