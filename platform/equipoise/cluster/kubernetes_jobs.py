"""Runs as RayJobs on Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator

from equipoise.cluster.image_pulls import ImagePulls
from equipoise.cluster.job_status import read_job, suspension
from equipoise.cluster.jobs import Job
from equipoise.cluster.kubernetes_api import KubernetesApi, Manifest
from equipoise.cluster.left_behind import naming
from equipoise.cluster.names import MANAGER
from equipoise.cluster.pod_access import pod_log
from equipoise.cluster.preflight import check_room, require_kuberay
from equipoise.cluster.reasons import fatal_reason, start_reasons
from equipoise.config.cluster import ClusterConfig
from equipoise.errors import EquipoiseError, InputError, ServiceError

_CREATED = ("RayJob", "ConfigMap")
_OURS = f"app.kubernetes.io/managed-by={MANAGER}"


class KubernetesJobs:
    """RayJobs in one namespace."""

    def __init__(self, api: KubernetesApi) -> None:
        self.api = api
        self.where = f"namespace {api.namespace} of {api.where}"
        self.options = f"--on kubernetes {api.options}"
        self._pulls = ImagePulls()

    def check(self, cluster: ClusterConfig) -> list[str]:
        """What can be known before anything is created; returns sentences that a person should read.

        Raises:
            InputError: KubeRay is missing, or a quota or every node is too small for the request.
        """
        require_kuberay(self.api, {"RayJob", "RayCluster"})
        return check_room(self.api, cluster)

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
        name = manifests[0]["metadata"]["name"]
        try:
            for manifest in manifests:
                found = self.api.apply(manifest)
                created.append(f"{manifest['kind']} {self.api.namespace}/{name}")
                owner = found if manifest["kind"] == "RayJob" else owner
            if owner is not None:
                for manifest in manifests:
                    if manifest["kind"] == "ConfigMap":
                        self.api.apply(_owned(manifest, owner))
        except EquipoiseError as error:
            raise naming(error, created, f"equipoise cancel {name} {self.options}") from error
        return created

    def find(self, job_id: str) -> Job | None:
        found = self.api.get("RayJob", job_id)
        return self._job(found) if found is not None else None

    def list_jobs(self) -> list[Job]:
        return [read_job(found) for found in self.api.list_objects("RayJob", labels=_OURS)]

    def tail(self, job_id: str, cursor: str) -> Iterator[tuple[str, str]]:
        """Lines of the submitter's log, which follows the job's; the cursor is the last line's timestamp."""
        for line in pod_log(self.api, self._submitter(job_id), since=cursor):
            time, _, text = line.partition(" ")
            # The server leaves out earlier lines by the second only.
            if time > cursor:
                cursor = time
                yield f"{text}\n", cursor

    def log(self, job_id: str) -> str:
        lines = pod_log(self.api, self._submitter(job_id), follow=False)
        return "".join(line.partition(" ")[2] + "\n" for line in lines)

    def standing(self, job: Job) -> list[str]:
        """RayJob and ConfigMap; KubeRay takes away the cluster of one that has ended, not these."""
        return [self._name(kind, job.id) for kind in _CREATED]

    def cancel(self, job_id: str) -> list[str]:
        return [self._name(kind, job_id) for kind in _CREATED if self.api.delete(kind, job_id)]

    def _name(self, kind: str, job_id: str) -> str:
        return f"{kind} {self.api.namespace}/{job_id}"

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
            return _with(job, suspension(manifest, self._workload_message(manifest)))
        if job.state != "starting":
            return job
        name, cluster = manifest["metadata"]["name"], manifest.get("status", {}).get("rayClusterName", "")
        pods = self.api.list_objects("Pod", labels=f"app.kubernetes.io/instance={name}")
        fatal, given_up = fatal_reason(pods), self._pulls.given_up(name, pods)
        if fatal or given_up:
            said = f"it can never start: {fatal}" if fatal else given_up
            return Job(job.id, "failed", said, job.started, job.ended, never_starts=True)
        events = self.api.list_objects("Event", fields="type=Warning")
        reasons = start_reasons(pods, events, {name, cluster} - {""})
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
