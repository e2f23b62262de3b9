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
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1024, max=65535)] = 8000,
    replicas: Annotated[int, typer.Option(help="Replicas, one core each.", min=1)] = 1,
) -> None:
    """Serve a bundle until Ctrl-C: POST /v1/predict, Open Inference Protocol v2, Prometheus metrics."""
    from equipoise.bundle import locate_bundle, open_bundle

    bundle = open_bundle(locate_bundle(location))
    from equipoise.config.serving import ServingConfig
    from equipoise.observability.logging import default_log_file, log_to
    from equipoise.pipeline.endpoint import keep_serving

    log_to(default_log_file())
    config = ServingConfig(host=host, port=port, replicas=replicas)
    run = location if (location / "config.json").is_file() else None
    keep_serving(bundle, config, run, typer.echo)
