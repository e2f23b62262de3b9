"""`equipoise render`: every object as a file, for GitOps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli.place import Namespace
from equipoise.cli.submit import Image
from equipoise.cli.until import Part, Until

if TYPE_CHECKING:
    from equipoise.config import RunConfig


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("render", epilog="Example: equipoise render -f run.yaml --into deploy/")(render)


def render(
    file: Annotated[Path, typer.Option("-f", "--file", help="Run config (YAML).")],
    into: Annotated[Path, typer.Option(help="Folder; files of the same names are replaced.")],
    bundle: Annotated[
        str | None, typer.Option(help="Bundle or run folder that pods can read; adds the service.")
    ] = None,
    namespace: Namespace = None,
    image: Image = None,
    until: Until = None,
) -> None:
    """Write the run's job, its cluster and, with a bundle, its service: one object a file."""
    from equipoise import storage
    from equipoise.cli.submit import override
    from equipoise.cluster.manifests.text import to_yaml
    from equipoise.config import load_config

    config = override(load_config(file), namespace, image)
    for name, manifest in rendered(config, bundle, until).items():
        target = into / name
        storage.put_bytes(str(target), to_yaml(manifest).encode())
        typer.echo(str(target))


def rendered(config: RunConfig, bundle: str | None, until: Part | None = None) -> dict[str, dict[str, Any]]:
    """Objects by file name."""
    from equipoise.cluster.job_manifests import job_manifests
    from equipoise.cluster.manifests import ray_cluster
    from equipoise.cluster.names import service_name, submission_id
    from equipoise.cluster.services import require_shared, service_manifest

    job_id = submission_id(config, until=until)
    found = {
        f"{manifest['kind'].lower()}.{job_id}.yaml": manifest
        for manifest in job_manifests(config, job_id, until)
    }
    cluster_name = service_name(config.name)
    found[f"raycluster.{cluster_name}.yaml"] = ray_cluster(cluster_name, config.cluster)
    if bundle is not None:
        require_shared(bundle, config.cluster)
        service = service_manifest(bundle, config.name, config.cluster, config.serving)
        found[f"rayservice.{service['metadata']['name']}.yaml"] = service
    if config.cluster.namespace is not None:
        for manifest in found.values():
            manifest["metadata"]["namespace"] = config.cluster.namespace
    return found
