"""`equipoise serve`: keep an endpoint up on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", epilog="Example: equipoise serve runs/demo --port 8000")(serve)


def serve(
    location: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="A finished run folder, or a bundle.")
    ],
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default: the run's, or loopback.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; default: the run's, or 8000.", min=1024, max=65535)
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Replicas, one core each; default: the run's, or 1.", min=1)
    ] = None,
    api_keys: Annotated[
        Path | None, typer.Option(help="File of API keys; needed where the host is not loopback.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Serve a new bundle that takes the old one's place on the disk.")
    ] = False,
    access_log: Annotated[
        Path | None, typer.Option(help="Folder for access logs; default: none are kept.")
    ] = None,
) -> None:
    """Serve a bundle until Ctrl-C: POST /v1/predict, Open Inference Protocol v2, Prometheus metrics."""
    from equipoise.bundle import locate_bundle, open_bundle

    bundle = open_bundle(locate_bundle(location))
    from equipoise.config import validate_config
    from equipoise.config.serving import ServingConfig
    from equipoise.observability.logging import default_log_file, log_to
    from equipoise.pipeline.endpoint import keep_serving
    from equipoise.runs import RunFolder

    log_to(default_log_file())
    run = location if (location / "config.json").is_file() else None
    held = RunFolder(run).read("config.json")["serving"] if run else {}
    given = {
        "host": host,
        "port": port,
        "replicas": replicas,
        "api_keys": str(api_keys) if api_keys else None,
        "access_log": str(access_log) if access_log else None,
    }
    values = held | {key: value for key, value in given.items() if value is not None}
    config = validate_config(ServingConfig, values, where=str(location))
    keep_serving(bundle, config, run, typer.echo, follow=follow)
