"""Submitting a run: joined where it is under way, started where it is not, its results fetched."""

from __future__ import annotations

import shlex
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from equipoise.cluster.follow import JobDisplay, follow
from equipoise.cluster.job_manifests import job_manifests, run_folder
from equipoise.cluster.jobs import Job, next_id
from equipoise.cluster.kubernetes_jobs import KubernetesJobs
from equipoise.cluster.manifests.pods import HEAD
from equipoise.cluster.manifests.ray_job import run_command
from equipoise.cluster.names import submission_id
from equipoise.cluster.payload import RUN_FILE, write_payload
from equipoise.cluster.pod_access import run_in_pod
from equipoise.cluster.price import estimate_sentence
from equipoise.cluster.ray_jobs import RayJobs
from equipoise.cluster.results import read_archive, unpack_archive
from equipoise.config import RunConfig
from equipoise.errors import InputError, ServiceError

_FETCH_S = 300.0
# The job's own folder goes with it; the run folder has to outlive it, so that another try resumes.
_RUNS_ON_HEAD = '"${EQUIPOISE_RUNS:-$HOME/equipoise-runs}"'


@dataclass(frozen=True)
class Submitted:
    """What a submission came to."""

    id: str
    joined: bool
    """Whether it was there before."""
    created: list[str] = field(default_factory=list)


def ray_entrypoint(config: RunConfig, until: str | None = None) -> str:
    """The command that a Ray cluster's head runs in the working directory."""
    return run_command(RUN_FILE, ray_run_folder(config), until)


def ray_run_folder(config: RunConfig) -> str:
    """The run folder on the head, as its shell reads it: `output` where that is absolute."""
    if config.output is not None and config.output.startswith("/"):
        return shlex.quote(config.output)
    return f"{_RUNS_ON_HEAD}/{config.name}"


def submit_to_ray(
    config: RunConfig, jobs: RayJobs, display: JobDisplay, until: str | None = None
) -> Submitted:
    """Start a run, or a part of it, on a running Ray cluster, or join it there.

    Raises:
        InputError: the cluster cannot run it, a file is absent, or the upload is too large.
        ServiceError: the cluster does not answer.
    """
    job_id, found = next_id(jobs, submission_id(config, until=until))
    if found is not None:
        return Submitted(job_id, joined=True)
    for sentence in jobs.check():
        display.note(sentence)
    with tempfile.TemporaryDirectory(prefix="equipoise-") as folder:
        payload = write_payload(config, Path(folder) / "working_dir.zip")
        display.note(f"uploads {payload.bytes / 2**20:.1f} MiB to {jobs.where}")
        try:
            jobs.submit(job_id, ray_entrypoint(config, until), payload.file, {"run": config.name})
        except InputError:
            # Someone else submitted the same run in between: then it is there.
            if jobs.find(job_id) is None:
                raise
            return Submitted(job_id, joined=True)
    return Submitted(job_id, joined=False, created=[f"job {job_id} at {jobs.where}"])


def submit_to_kubernetes(
    config: RunConfig, jobs: KubernetesJobs, display: JobDisplay, until: str | None = None
) -> Submitted:
    """Create the RayJob of a run, or of a part of it, or join it.

    Raises:
        InputError: the cluster refuses it or can never run it.
        ServiceError: the API server does not answer, or has no room now.
    """
    job_id, found = next_id(jobs, submission_id(config, until=until))
    if found is not None:
        return Submitted(job_id, joined=True)
    manifests = job_manifests(config, job_id, until)
    display.note(estimate_sentence(config))
    for sentence in jobs.check(config.cluster):
        display.note(sentence)
    return Submitted(job_id, joined=False, created=jobs.submit(manifests))


def fetch_from_ray(config: RunConfig, jobs: RayJobs, job_id: str, target: Path) -> None:
    """Bring a finished run's records here, by a second job that prints them.

    Raises:
        RunFolderError: something that was not fetched stands at `target`.
        ServiceError: they did not arrive.
    """
    reader = f"{job_id}-results-{int(time.time())}"
    command = f"python -m equipoise.cluster.results {ray_run_folder(config)}"
    with tempfile.TemporaryDirectory(prefix="equipoise-") as folder:
        payload = write_payload(config, Path(folder) / "working_dir.zip")
        jobs.submit(reader, command, payload.file, {"run": config.name})
    job = follow(jobs, reader, _Silent(), poll_s=0.5)
    log = jobs.log(reader)
    if job.state != "succeeded":
        said = next((line for line in log.splitlines() if line.startswith("equipoise: ")), job.message)
        raise ServiceError(f"the results cannot be fetched: {said}", where=job_id)
    unpack_archive(read_archive(log), target, {"job": job_id, "from": jobs.where})


def fetch_from_kubernetes(config: RunConfig, jobs: KubernetesJobs, job_id: str, target: Path) -> None:
    """Bring a finished run's records here, out of the head pod, which stays for `cluster.keep_s`.

    Raises:
        RunFolderError: something that was not fetched stands at `target`.
        InputError: the head pod is gone, or nothing may be run in it.
        ServiceError: they did not arrive.
    """
    head = jobs.head_pod(job_id)
    command = ["python", "-m", "equipoise.cluster.results", run_folder(config)]
    printed = run_in_pod(jobs.api, head, HEAD, command, _FETCH_S)
    unpack_archive(read_archive(printed), target, {"job": job_id, "from": jobs.where})


class _Silent:
    """Shows nothing."""

    def state(self, job: Job) -> None:
        pass

    def log(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass
