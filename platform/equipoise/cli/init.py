"""`equipoise init`: a commented run config."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init", epilog="Example: equipoise init my.yaml --train train.csv --test test.csv")(init)


def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("run.yaml"),
    train: Annotated[str, typer.Option(help="Training examples.")] = "train.csv",
    test: Annotated[str, typer.Option(help="Test examples.")] = "test.csv",
    teacher: Annotated[str, typer.Option(help="Pretrained model.")] = "sample://all-minilm-l6-v2",
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> None:
    """Write a run config with every key, its default and what it means."""
    from equipoise.config.template import render_template
    from equipoise.errors import ConfigError
    from equipoise.storage import put_bytes

    if file.exists() and not force:
        raise ConfigError("stands already", where=str(file), remedy="choose another name, or use --force")
    given = {
        "name": _run_name(file.stem),
        "data": {"train": train, "test": test},
        "model": {"teacher": teacher},
    }
    put_bytes(str(file), render_template(given).encode())
    typer.echo(f"wrote {file}; check it with `equipoise run -f {file} --dry-run`")


def _run_name(stem: str) -> str:
    """A valid run name out of a file name."""
    plain = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return plain[:63] or "run"
