"""The `equipoise` command; each command imports what it needs when it is called."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Annotated

import typer

from equipoise import __version__
from equipoise.cli import (
    choose,
    compare,
    cost,
    deploy,
    doctor,
    estimate,
    evaluate,
    exporter,
    init,
    jobs,
    keys,
    ledger,
    predict,
    render,
    rerank,
    run,
    serve,
    show,
    submit,
)
from equipoise.errors import EquipoiseError

app = typer.Typer(
    name="equipoise",
    help="Finds the cheapest model that is still good enough, and runs it.",
    epilog="Start with `equipoise demo`, or `equipoise init` and `equipoise run -f run.yaml`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
COMMANDS = (
    run,
    estimate,
    show,
    choose,
    compare,
    cost,
    rerank,
    evaluate,
    predict,
    serve,
    submit,
    jobs,
    deploy,
    render,
    init,
    doctor,
    exporter,
    ledger,
    keys,
)
for module in COMMANDS:
    module.add_to(app)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"equipoise {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command; every fault becomes one line and its exit status."""
    try:
        app()
    except EquipoiseError as error:
        logging.getLogger("equipoise").info("stopped", exc_info=True)
        typer.echo(f"equipoise: {error}", err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        typer.echo("equipoise: interrupted; the same command continues where it stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches the terminal
        file = _log_crash()
        line = (str(error).strip().splitlines() or [""])[0]
        typer.echo(
            f"equipoise: a defect of ours, {type(error).__name__}: {line}; traceback in {file}", err=True
        )
        sys.exit(1)


def run_as_job(command: str) -> None:
    """The same command as the entry point of a Ray job, with the job's own arguments."""
    sys.argv[1:1] = [command]
    main()


def _log_crash() -> str:
    from equipoise.observability.logging import default_log_file, log_to

    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    try:
        file = handlers[0].baseFilename if handlers else str(log_to(default_log_file()))
    except EquipoiseError as error:
        return f"no file, {error}"
    logging.getLogger("equipoise").error("%s", traceback.format_exc())
    return file


if __name__ == "__main__":
    main()
