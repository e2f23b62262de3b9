"""`equipoise deploy`, `status` and `undeploy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equipoise.cli.place import Context, Kubeconfig, Namespace, On, Place
from equipoise.cli.submit import Format, Image, Output, print_objects

if TYPE_CHECKING:
    from equipoise.cluster.services import Services
    from equipoise.config.cluster import ClusterConfig
    from equipoise.config.serving import ServingConfig

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[
    Path | None,
    typer.Option("-f", "--file", help="Run config with sections cluster and serving; default: the run's."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("deploy", epilog="Example: equipoise deploy s3://models/runs/demo -f run.yaml")(deploy)
    app.command("status", epilog="Example: equipoise status demo --json")(status)
    app.command("undeploy", epilog="Example: equipoise undeploy demo")(undeploy)


def deploy(
    location: Annotated[
        str, typer.Argument(metavar="RUN|BUNDLE", help="A path, a path on the claim, or a URI.")
    ],
    on: On = Place.kubernetes,
    file: Config = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    image: Image = None,
    replicas: Annotated[int | None, typer.Option(help="Replicas; default: serving.replicas.", min=1)] = None,
    force: Annotated[bool, typer.Option("--force", help="Take fields over from other tools.")] = False,
    wait_s: Annotated[
        float, typer.Option(help="Longest wait until it serves; 0 does not wait.", min=0)
    ] = 900,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the objects, create nothing.")] = False,
    output: Output = Format.yaml,
    json: Json = False,
) -> None:
    """Serve a bundle on Kubernetes; one that is served already is replaced without downtime."""
    from equipoise.cluster.services import service_manifest, shared_bundle
    from equipoise.errors import ConfigError
    from equipoise.observability.logging import default_log_file, log_to

    log_to(default_log_file())
    if on is Place.ray:
        raise ConfigError(
            "deployments go to Kubernetes",
            where="--on",
            value=on.value,
            remedy="on a running Ray cluster use `equipoise serve` with RAY_ADDRESS",
        )
    cluster, serving = deploy_config(location, file, namespace, image, replicas)
    from equipoise.cluster.manifests.pods import require_image

    require_image(cluster)
    manifest = service_manifest(*shared_bundle(location, cluster, upload=False), cluster, serving)
    if dry_run:
        print_objects([manifest], output, cluster.namespace)
        return
    services = _open(namespace or cluster.namespace, context, kubeconfig)

    def tell(text: str) -> None:
        typer.echo(f"· {text}", err=json)

    for sentence in services.check(manifest, cluster, force=force):
        tell(sentence)
    # What the cluster would refuse is not uploaded.
    bundle, _ = shared_bundle(location, cluster)
    name = manifest["metadata"]["name"]
    created = services.deploy(manifest, force=force)
    tell(f"applied {created}; equipoise undeploy {name} {services.api.options} removes it")
    service = services.wait(name, bundle, tell, wait_s) if wait_s else services.find(name)
    if json and service is not None:
        import json as encoder

        typer.echo(encoder.dumps(service.to_json(), indent=1))
    elif service is not None:
        typer.echo(f"{name} {service.phase} at {service.address} in the cluster; from here:")
        typer.echo(f"kubectl -n {services.api.namespace} port-forward svc/{name}-serve-svc 8000")


def status(
    name: Annotated[str | None, typer.Argument(help="A deployment; default: all of them.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
) -> None:
    """Say what is deployed, whether it serves, and why not."""
    from equipoise.errors import InputError

    services = _open(namespace, context, kubeconfig)
    names = [name] if name else [service.name for service in services.list_services()]
    found = [service for each in names if (service := services.find(each)) is not None]
    if name and not found:
        raise InputError("no such deployment", where=services.api.where, value=name)
    if json:
        import json as encoder

        typer.echo(encoder.dumps([service.to_json() for service in found], indent=1))
        return
    if not found:
        typer.echo(f"nothing is deployed in namespace {services.api.namespace}")
    for service in found:
        reason = f"  {service.message}" if service.message else ""
        typer.echo(f"{service.name:<47}  {service.phase:<8}  {service.bundle}{reason}")


def undeploy(
    name: Annotated[str, typer.Argument(help="The deployment, as `equipoise status` lists it.")],
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
) -> None:
    """Remove a deployment and its pods; the bundle stays where it is."""
    from equipoise.errors import InputError

    services = _open(namespace, context, kubeconfig)
    removed = services.undeploy(name)
    if not removed:
        raise InputError("no such deployment", where=services.api.where, value=name)
    if json:
        import json as encoder

        typer.echo(encoder.dumps({"name": name, "removed": removed}, indent=1))
        return
    for each in removed:
        typer.echo(f"removed {each}")


def deploy_config(
    location: str, file: Path | None, namespace: str | None, image: str | None, replicas: int | None
) -> tuple[ClusterConfig, ServingConfig]:
    """The sections `cluster` and `serving`: of the file, else of the run folder, else the defaults."""
    from equipoise.cli.submit import override
    from equipoise.config import RunConfig, load_config, validate_config
    from equipoise.config.cluster import ClusterConfig
    from equipoise.config.serving import ServingConfig
    from equipoise.runs import RunFolder

    config = load_config(file) if file is not None else None
    run = RunFolder(location)
    if config is None and run.has("config.json"):
        config = validate_config(RunConfig, run.read("config.json"), where=run.path("config.json"))
    if config is None:
        given = {"namespace": namespace, "image": image}
        cluster = ClusterConfig(**{key: value for key, value in given.items() if value is not None})
        serving = ServingConfig()
    else:
        config = override(config, namespace, image)
        cluster, serving = config.cluster, config.serving
    if replicas is not None:
        serving = serving.model_copy(update={"replicas": replicas})
    return cluster, serving


def _open(namespace: str | None, context: str | None, kubeconfig: str | None) -> Services:
    from equipoise.cluster.kubeconfig import connect
    from equipoise.cluster.services import Services

    return Services(connect(namespace, context, kubeconfig))
