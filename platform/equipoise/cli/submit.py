"""`equipoise submit`: a run on Kubernetes or on a running Ray cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli.place import Address, Context, Kubeconfig, Namespace, On, Place, TokenFile
from equipoise.cli.until import Part, Until

if TYPE_CHECKING:
    from equipoise.cli.job_display import LineDisplay
    from equipoise.cluster.jobs import Job, Jobs
    from equipoise.cluster.kubernetes_jobs import KubernetesJobs
    from equipoise.config import RunConfig


class Format(StrEnum):
    """How objects are printed."""

    yaml = "yaml"
    json = "json"


Output = Annotated[Format, typer.Option("-o", "--output", help="How a dry run prints objects.")]
Image = Annotated[str | None, typer.Option(help="kubernetes: image; default: cluster.image.")]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit", epilog="Example: equipoise submit -f run.yaml -n research --until finetune")(submit)


def submit(
    file: Annotated[Path, typer.Option("-f", "--file", help="Run config (YAML).")],
    on: On = Place.kubernetes,
    address: Address = None,
    token_file: TokenFile = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    image: Image = None,
    until: Until = None,
    out: Annotated[
        Path | None, typer.Option(help="Local folder for the results; default: runs/NAME.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is submitted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted.")] = False,
    output: Output = Format.yaml,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Submit a run, follow it to its end and fetch its results; submitting it again joins it."""
    from equipoise.cli.estimate import told_line
    from equipoise.cli.job_display import LineDisplay
    from equipoise.config import load_config
    from equipoise.observability.logging import default_log_file, log_to

    # An estimate is told of the file as it is.
    given = load_config(file)
    config = override(given, namespace, image)
    log_to(default_log_file())
    if dry_run:
        _print_dry_run(config, on, output, until)
        return
    display = LineDisplay(quiet=json)
    from equipoise.cluster import submission
    from equipoise.cluster.results import require_replaceable

    target = out or Path("runs") / config.name
    if not detach:
        require_replaceable(target)
    told = ("" if until is None else "the whole run: ") + told_line(given, file)
    if on is Place.ray:
        from equipoise.cli.place import open_ray

        ray_jobs = open_ray(address, token_file)
        display.note(told)
        found = submission.submit_to_ray(config, ray_jobs, display, until)
        jobs: Jobs = ray_jobs
    else:
        from equipoise.cli.place import open_kubernetes

        kubernetes_jobs = open_kubernetes(namespace, context, kubeconfig, config.cluster.namespace)
        display.note(told)
        found = submission.submit_to_kubernetes(config, kubernetes_jobs, display, until)
        jobs = kubernetes_jobs
    for name in found.created:
        display.note(f"created {name}")
    display.note(
        f"{found.id} was there already; following it"
        if found.joined
        else f"equipoise cancel {found.id} {jobs.options} removes it"
    )
    outcome: dict[str, Any] = {"id": found.id, "joined": found.joined, "created": found.created}
    if not detach:
        outcome |= follow_to_end(jobs, found.id, display).to_json()
        if on is Place.ray:
            submission.fetch_from_ray(config, ray_jobs, found.id, target)
            outcome["results"] = str(target)
        else:
            outcome["results"] = _fetch_or_say(config, kubernetes_jobs, found.id, target, display)
        display.note(f"results in {outcome['results']}")
        if until is not None:
            display.note(
                f"it ended after --until {until}; its weights stay in its run folder, "
                "and the same without --until goes on from there"
            )
    if json:
        import json as encoder

        typer.echo(encoder.dumps(outcome, indent=1))


def _fetch_or_say(
    config: RunConfig, jobs: KubernetesJobs, job_id: str, target: Path, display: LineDisplay
) -> str:
    """Where the results are: fetched, or on the claim that keeps them, with the reason."""
    from equipoise.cluster.job_manifests import run_folder
    from equipoise.cluster.submission import fetch_from_kubernetes
    from equipoise.errors import EquipoiseError

    try:
        fetch_from_kubernetes(config, jobs, job_id, target)
    except EquipoiseError as error:
        if config.cluster.storage.claim is None:
            raise
        display.note(f"not fetched: {error}")
        return f"{run_folder(config)} of claim {config.cluster.storage.claim}"
    return str(target)


def follow_to_end(jobs: Jobs, job_id: str, display: LineDisplay) -> Job:
    """Follow a job; a failed one is the error that it ended with, Ctrl-C leaves it running."""
    from equipoise.cluster.follow import follow
    from equipoise.cluster.jobs import failure
    from equipoise.cluster.left_behind import naming
    from equipoise.errors import InterruptedRunError

    try:
        job = follow(jobs, job_id, display)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "no longer followed; the job goes on",
            where=job_id,
            remedy=f"equipoise logs {job_id} {jobs.options} --follow; "
            f"`equipoise cancel {job_id} {jobs.options}` removes it",
        ) from None
    if job.state != "succeeded":
        error = failure(job, display.last_line, f"equipoise logs {job_id} {jobs.options}")
        raise naming(error, jobs.standing(job), f"equipoise cancel {job_id} {jobs.options}")
    return job


def override(config: RunConfig, namespace: str | None, image: str | None) -> RunConfig:
    """The config with what the command line says of its cluster."""
    given = {"namespace": namespace, "image": image}
    changes = {key: value for key, value in given.items() if value is not None}
    return config.model_copy(update={"cluster": config.cluster.model_copy(update=changes)})


def print_objects(manifests: list[dict[str, Any]], output: Format, namespace: str | None) -> None:
    """Objects as kubectl reads them, in the namespace where one was named."""
    if namespace is not None:
        for manifest in manifests:
            manifest["metadata"]["namespace"] = namespace
    if output is Format.json:
        import json

        typer.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}, indent=1))
        return
    from equipoise.cluster.manifests.text import to_yaml

    typer.echo(to_yaml(*manifests), nl=False)


def _print_dry_run(config: RunConfig, on: Place, output: Format, until: Part | None) -> None:
    from equipoise.cluster.names import submission_id

    job_id = submission_id(config, until=until)
    if on is Place.kubernetes:
        from equipoise.cluster.job_manifests import job_manifests

        print_objects(job_manifests(config, job_id, until), output, config.cluster.namespace)
        return
    import tempfile

    from equipoise.cluster.payload import write_payload
    from equipoise.cluster.submission import ray_entrypoint

    with tempfile.TemporaryDirectory(prefix="equipoise-") as folder:
        payload = write_payload(config, Path(folder) / "working_dir.zip")
        inputs = [name for name in payload.entries if name.startswith("inputs/")]
        typer.echo(f"job {job_id}: {ray_entrypoint(config, until)}")
        typer.echo(
            f"would upload {payload.bytes / 2**20:.1f} MiB: Equipoise, {', '.join(['run.yaml', *inputs])}"
        )
