"""`equipoise exporter`: the Prometheus cost exporter, a process of its own."""

from __future__ import annotations

from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("exporter", epilog="Example: equipoise exporter runs/demo --port 9464")(exporter)


def _print_rules(asked: bool) -> None:
    if asked:
        from equipoise.exporter.rules import RULES

        typer.echo(RULES.read_text(encoding="utf-8"), nl=False)
        raise typer.Exit


def exporter(
    run: Annotated[str, typer.Argument(help="Run folder whose dollars are exported.")],
    ray_metrics_url: Annotated[
        str | None, typer.Option(help="Ray's metrics page, for live request counts.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 9464,
    wait: Annotated[
        bool, typer.Option("--wait", help="Start before the run folder is there; it is reported as down.")
    ] = False,
    rules: Annotated[
        bool,
        typer.Option(
            "--rules", callback=_print_rules, is_eager=True, help="Print the Prometheus rules and alerts."
        ),
    ] = False,
) -> None:
    """Export dollars by run, component and term, and $/1k requests, to Prometheus."""
    del rules
    from equipoise.exporter.server import serve_metrics
    from equipoise.pipeline.summary import require_run
    from equipoise.runs import RunFolder

    if not wait:
        require_run(RunFolder(run))
    serve_metrics(run, ray_metrics_url=ray_metrics_url, host=host, port=port)
