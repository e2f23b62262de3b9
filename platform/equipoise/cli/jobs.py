"""`equipoise jobs`, `logs` and `cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from equipoise.cli.place import Address, Context, Kubeconfig, Namespace, On, Place, TokenFile, open_jobs

Id = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `equipoise jobs` lists it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("jobs", epilog="Example: equipoise jobs --on ray --address http://127.0.0.1:8265")(jobs)
    app.command("logs", epilog="Example: equipoise logs demo-1a2b3c4d --follow")(logs)
    app.command("cancel", epilog="Example: equipoise cancel demo-1a2b3c4d")(cancel)


def jobs(
    on: On = Place.kubernetes,
    address: Address = None,
    token_file: TokenFile = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
) -> None:
    """List the submitted runs, their state and, where one waits, what it waits for."""
    place = open_jobs(on, address, token_file, namespace, context, kubeconfig)
    found = sorted(place.list_jobs(), key=lambda job: (job.started, job.id))
    # The list tells what Ray or KubeRay wrote; why one waits takes a look at its pods.
    found = [place.find(job.id) or job if job.state in ("starting", "suspended") else job for job in found]
    if json:
        import json as encoder

        typer.echo(encoder.dumps([job.to_json() for job in found], indent=1))
        return
    if not found:
        typer.echo(f"no jobs in {place.where}")
    for job in found:
        reason = f"  {job.message}" if job.message else ""
        typer.echo(f"{job.id:<47}  {job.state:<9}  {job.started or '-':<25}{reason}".rstrip())


def logs(
    job: Id,
    on: On = Place.kubernetes,
    address: Address = None,
    token_file: TokenFile = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
) -> None:
    """Print the log of a job."""
    from equipoise.errors import InputError

    place = open_jobs(on, address, token_file, namespace, context, kubeconfig)
    if place.find(job) is None:
        raise InputError("no such job", where=place.where, value=job, remedy="see `equipoise jobs`")
    if not follow:
        typer.echo(place.log(job), nl=False)
        return
    from equipoise.cli.job_display import LineDisplay
    from equipoise.cli.submit import follow_to_end

    follow_to_end(place, job, LineDisplay())


def cancel(
    job: Id,
    on: On = Place.kubernetes,
    address: Address = None,
    token_file: TokenFile = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
) -> None:
    """Stop a job and remove what it created; its run folder stays, and submitting it again goes on."""
    from equipoise.errors import InputError

    place = open_jobs(on, address, token_file, namespace, context, kubeconfig)
    removed = place.cancel(job)
    if not removed and place.find(job) is None:
        raise InputError("no such job", where=place.where, value=job, remedy="see `equipoise jobs`")
    if json:
        import json as encoder

        typer.echo(encoder.dumps({"id": job, "removed": removed}, indent=1))
        return
    for name in removed:
        typer.echo(f"removed {name}" if on is Place.kubernetes else f"stopped {name}")
    if not removed:
        typer.echo(f"{job} has ended already")
