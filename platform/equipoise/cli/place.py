"""Options that name a place elsewhere, and what opens it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from equipoise.cluster.kubernetes_jobs import KubernetesJobs
    from equipoise.cluster.ray_jobs import RayJobs


class Place(StrEnum):
    """Where a job runs."""

    kubernetes = "kubernetes"
    ray = "ray"


On = Annotated[Place, typer.Option("--on", help="Kubernetes with KubeRay, or a running Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option(help="ray: the dashboard's URL; default: RAY_API_SERVER_ADDRESS or RAY_ADDRESS."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="ray: file with Ray's token; default: as Ray does, such as RAY_AUTH_TOKEN."),
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="kubernetes: namespace; default: the context's.")
]
Context = Annotated[str | None, typer.Option(help="kubernetes: context of the kubeconfig.")]
Kubeconfig = Annotated[str | None, typer.Option(help="kubernetes: kubeconfig; default: as kubectl.")]


def open_kubernetes(
    namespace: str | None, context: str | None, kubeconfig: str | None, configured: str | None = None
) -> KubernetesJobs:
    """Jobs on Kubernetes, in the namespace of the option, else of the config, else of the context."""
    from equipoise.cluster.kubeconfig import connect
    from equipoise.cluster.kubernetes_jobs import KubernetesJobs

    return KubernetesJobs(connect(namespace or configured, context, kubeconfig))


def open_ray(address: str | None, token_file: Path | None) -> RayJobs:
    """Jobs on a running Ray cluster."""
    from equipoise.cluster.ray_jobs import RayJobs, find_address, find_token

    return RayJobs(find_address(address), find_token(token_file), token_file)


def open_jobs(
    on: Place,
    address: str | None,
    token_file: Path | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
) -> KubernetesJobs | RayJobs:
    """The place that the options name."""
    from equipoise.observability.logging import default_log_file, log_to

    log_to(default_log_file())
    if on is Place.ray:
        return open_ray(address, token_file)
    return open_kubernetes(namespace, context, kubeconfig)
