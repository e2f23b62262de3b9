"""Runs as RayJobs on Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from equipoise.cluster.api_faults import INSTALL_KUBERAY
from equipoise.cluster.fit import misfits, over_quota
from equipoise.cluster.jobs import Job, State, exit_code, short_message
from equipoise.cluster.kubernetes_api import KubernetesApi, Manifest
from equipoise.cluster.manifests import ray_job, run_config_map
from equipoise.cluster.manifests.ray_job import MOUNT, RUN_FILE
from equipoise.cluster.manifests.text import to_yaml
from equipoise.cluster.names import MANAGER
from equipoise.cluster.reasons import fatal_reason, newest_warning, pod_reasons
from equipoise.cluster.run_files import with_paths
from equipoise.config import RunConfig
from equipoise.config.cluster import ClusterConfig
from equipoise.errors import EquipoiseError, InputError, ServiceError

_PRICES_FILE = "prices.yaml"
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_OURS = f"app.kubernetes.io/managed-by={MANAGER}"

_ENDED: dict[str, State] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}


def job_manifests(config: RunConfig, job_id: str) -> list[Manifest]:
    """Everything that submitting a run creates: its ConfigMap, then its RayJob.

    Raises:
        InputError: the config names a file or a run folder that pods cannot see.
    """
    cluster = config.cluster
    files: dict[str, str] = {}
    if cluster.worker_groups and cluster.storage.claim is None:
        raise InputError(
            "workers and head share the run folder, which takes a claim",
            where="cluster.storage.claim",
            remedy="name a PersistentVolumeClaim that several nodes can write to (ReadWriteMany)",
        )

    def place(field: str, path: Path) -> str:
        if field == "cost.prices":
            files[_PRICES_FILE] = _read(path, field)
            return f"{MOUNT}/{_PRICES_FILE}"
        if _within(str(path), cluster):
            return str(path)
        raise InputError(
            "is a file of this machine, which pods cannot read",
            where=field,
            value=str(path),
            remedy=f"put it on the claim and name it below {cluster.storage.mount_path}, or give a URI",
        )

    values = with_paths(config, place)
    values["output"] = out = run_folder(config)
    # The pods are what it asks for already.
    del values["cluster"]
    files[RUN_FILE] = to_yaml(values)
    return [
        run_config_map(job_id, files),
        ray_job(job_id, cluster, out, {"run": config.name, "manager": MANAGER}),
    ]


def run_folder(config: RunConfig) -> str:
    """The run folder as the pods see it.

    Raises:
        InputError: `output` lies elsewhere.
    """
    mount = config.cluster.storage.mount_path
    if config.output is None:
        return f"{mount}/runs/{config.name}"
    if not _within(config.output, config.cluster):
        raise InputError(
            "is no folder that pods can write to",
            where="output",
            value=config.output,
            remedy=f"leave it out, or name a folder below {mount}",
        )
    return config.output


class KubernetesJobs:
    """RayJobs in one namespace."""

    def __init__(self, api: KubernetesApi) -> None:
        self.api = api
        self.where = f"namespace {api.namespace} of {api.where}"
        self.options = f"--on kubernetes --namespace {api.namespace}"

    def check(self, cluster: ClusterConfig) -> list[str]:
        """What can be known before anything is created; returns sentences that a person should read.

        Raises:
            InputError: KubeRay is missing, or a quota or every node is too small for the request.
        """
        require_kuberay(self.api, {"RayJob", "RayCluster"})
        notes: list[str] = []
        try:
            never, now = over_quota(cluster, self.api.list_objects("ResourceQuota"))
        except InputError:
            never, now = [], []  # Not allowed to look: admission will tell.
        if never:
            raise InputError(
                "more than the namespace's quota is asked for: " + "; ".join(never),
                where="cluster",
                remedy="ask for less, or have the quota raised",
            )
        notes += [f"it will wait: {sentence}" for sentence in now]
        try:
            nodes = self.api.list_objects("Node")
        except InputError:
            notes.append("nodes cannot be listed with these rights, so whether the pods fit is not known")
            return notes
        found = misfits(cluster, nodes)
        if found and self.api.adds_nodes():
            notes += [f"needs a node that is not there yet: {sentence}" for sentence in found]
        elif found:
            raise InputError(
                "no node can ever take these pods: " + "; ".join(found),
                where="cluster",
                remedy="make the groups smaller, correct node_selector and tolerations, or add nodes",
            )
        return notes

    def submit(self, manifests: list[Manifest]) -> list[str]:
        """Create them, or change what differs; returns `KIND NAMESPACE/NAME` of each.

        The server checks all of them before it keeps any.

        Raises:
            EquipoiseError: as `KubernetesApi.apply`; names what was created before.
        """
        for manifest in manifests:
            self.api.apply(manifest, dry_run=True)
        created: list[str] = []
        owner: Manifest | None = None
        for manifest in manifests:
            try:
                found = self.api.apply(manifest)
            except EquipoiseError as error:
                raise _after(error, created, manifest["metadata"]["name"], self.options) from error
            created.append(f"{manifest['kind']} {self.api.namespace}/{manifest['metadata']['name']}")
            owner = found if manifest["kind"] == "RayJob" else owner
        if owner is not None:
            for manifest in manifests:
                if manifest["kind"] == "ConfigMap":
                    self.api.apply(_owned(manifest, owner))
        return created

    def find(self, job_id: str) -> Job | None:
        found = self.api.get("RayJob", job_id)
        return self._job(found) if found is not None else None

    def list_jobs(self) -> list[Job]:
        return [read_job(found) for found in self.api.list_objects("RayJob", labels=_OURS)]

    def tail(self, job_id: str, cursor: str) -> Iterator[tuple[str, str]]:
        """Lines of the submitter's log, which follows the job's; the cursor is the last line's timestamp."""
        for line in self.api.pod_log(self._submitter(job_id), since=cursor):
            time, _, text = line.partition(" ")
            # The server leaves out earlier lines by the second only.
            if time > cursor:
                cursor = time
                yield f"{text}\n", cursor

    def log(self, job_id: str) -> str:
        lines = self.api.pod_log(self._submitter(job_id), follow=False)
        return "".join(line.partition(" ")[2] + "\n" for line in lines)

    def cancel(self, job_id: str) -> list[str]:
        return [
            f"{kind} {self.api.namespace}/{job_id}"
            for kind in ("RayJob", "ConfigMap")
            if self.api.delete(kind, job_id)
        ]

    def head_pod(self, job_id: str) -> str:
        """Name of the running head pod of a job's cluster.

        Raises:
            InputError: it is gone.
        """
        labels = f"app.kubernetes.io/instance={job_id},ray.io/node-type=head"
        running = [
            pod
            for pod in self.api.list_objects("Pod", labels=labels)
            if pod.get("status", {}).get("phase") == "Running"
        ]
        if not running:
            raise InputError("its head pod is gone", where=job_id, remedy="raise cluster.keep_s")
        return str(running[-1]["metadata"]["name"])

    def _submitter(self, job_id: str) -> str:
        """The newest pod that handed the job to its cluster."""
        labels = f"app.kubernetes.io/instance={job_id},app.kubernetes.io/component=submitter"
        pods = [pod for pod in self.api.list_objects("Pod", labels=labels) if _has_log(pod)]
        if not pods:
            raise ServiceError("there is no log yet", where=job_id, remedy="look again once the job runs")
        newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
        return str(newest["metadata"]["name"])

    def _job(self, manifest: Manifest) -> Job:
        """A job with the reason that it does not start, which takes a look at its pods or its queue."""
        job = read_job(manifest)
        if job.state == "suspended":
            return _with(job, _suspension(manifest, self._workload_message(manifest)))
        if job.state != "starting":
            return job
        name, cluster = manifest["metadata"]["name"], manifest.get("status", {}).get("rayClusterName", "")
        pods = self.api.list_objects("Pod", labels=f"app.kubernetes.io/instance={name}")
        fatal = fatal_reason(pods)
        if fatal:
            return Job(job.id, "failed", f"it can never start: {fatal}", job.started, job.ended)
        events = self.api.list_objects("Event", fields="type=Warning")
        reasons = pod_reasons(pods, events)
        if not reasons and not pods:
            reasons = [part for part in [newest_warning(events, {name, cluster} - {""})] if part]
        return _with(job, "; ".join(reasons[:2]) or job.message)

    def _workload_message(self, manifest: Manifest) -> str:
        uid = manifest["metadata"].get("uid", "")
        try:
            workloads = self.api.list_objects("Workload", labels=f"kueue.x-k8s.io/job-uid={uid}")
        except InputError:
            return ""
        conditions = [
            condition
            for workload in workloads
            for condition in workload.get("status", {}).get("conditions", [])
            if condition.get("status") == "False" and condition.get("type") in ("QuotaReserved", "Admitted")
        ]
        return str(conditions[0].get("message", "")) if conditions else ""


def read_job(manifest: Manifest) -> Job:
    """A RayJob's state, from what KubeRay wrote into its status."""
    spec, status = manifest.get("spec", {}), manifest.get("status", {})
    phase, ray = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    message = short_message(str(status.get("message", "")))
    state: State = "starting"
    if phase in ("Suspended", "Suspending") or (spec.get("suspend") and phase in ("", "Initializing")):
        state = "suspended"
    elif phase in ("Failed", "ValidationFailed"):
        state = "stopped" if ray == "STOPPED" else "failed"
        message = ": ".join(part for part in (str(status.get("reason", "")), message) if part)
    elif phase == "Complete":
        state = _ENDED.get(ray, "succeeded")
    elif ray == "RUNNING" and phase == "Running":
        state = "running"
    return Job(
        id=manifest["metadata"]["name"],
        state=state,
        message=message,
        started=str(status.get("startTime") or ""),
        ended=str(status.get("endTime") or ""),
        exit_code=exit_code(message) if state == "failed" else None,
    )


def require_kuberay(api: KubernetesApi, kinds: set[str]) -> None:
    """Raise InputError unless the server knows KubeRay's kinds."""
    missing = kinds - api.resources("ray.io/v1")
    if missing:
        raise InputError(
            f"KubeRay is missing: the API server does not know {', '.join(sorted(missing))} of ray.io/v1",
            where=api.where,
            remedy=INSTALL_KUBERAY,
        )


def _suspension(manifest: Manifest, said: str) -> str:
    queue = manifest["metadata"].get("labels", {}).get(_QUEUE_LABEL)
    waits = f"suspended by Kueue until queue {queue} admits it" if queue else "suspended"
    return f"{waits}: {said}" if said else waits


def _with(job: Job, message: str) -> Job:
    return Job(job.id, job.state, message, job.started, job.ended, job.exit_code)


def _has_log(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") in ("Running", "Succeeded", "Failed")


def _owned(manifest: Manifest, owner: Manifest) -> Manifest:
    """The ConfigMap, to be removed with its RayJob."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [reference]}}


def _after(error: EquipoiseError, created: list[str], name: str, options: str) -> EquipoiseError:
    """The same error, with what stands already and what removes it."""
    if not created:
        return error
    rest = f"{', '.join(created)} was created before; `equipoise cancel {name} {options}` removes it"
    remedy = f"{error.remedy}; {rest}" if error.remedy else rest
    return type(error)(error.what, where=error.where, value=error.value, remedy=remedy)


def _within(path: str, cluster: ClusterConfig) -> bool:
    mount = PurePosixPath(cluster.storage.mount_path)
    found = PurePosixPath(path)
    return found.is_absolute() and ".." not in found.parts and found.is_relative_to(mount) and found != mount


def _read(path: Path, field: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=field, value=str(path)) from error
