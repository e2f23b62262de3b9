"""RayJob and the ConfigMap that carries its run config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.cluster.manifests import pods
from equipoise.cluster.manifests.ray_cluster import API_VERSION, cluster_spec
from equipoise.cluster.names import object_labels, pod_labels
from equipoise.config.cluster import ClusterConfig

MOUNT = "/etc/equipoise"
RUN_FILE = "run.yaml"

_START_S = 1800


def run_config_map(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    """What the head mounts at `/etc/equipoise`.

    Args:
        name: of the job, and so of its ConfigMap.
        files: content by file name; `run.yaml` among them.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": object_labels(name, "job")},
        "data": dict(files),
    }


def run_command(file: str, out: str, until: str | None = None) -> str:
    """The entrypoint of a run, or of a part of one."""
    part = "" if until is None else f" --until {until}"
    return f"python -m equipoise.cli.main run -f {file} --out {out}{part}"


def ray_job(
    name: str,
    cluster: ClusterConfig,
    out: str,
    metadata: Mapping[str, str] | None = None,
    until: str | None = None,
) -> dict[str, Any]:
    """A RayJob on a cluster of its own, which goes a while after the job has ended.

    Args:
        name: the submission id; also the id of the Ray job, so that no retry submits it twice.
        cluster: image, size, placement, storage.
        out: run folder, as the pods see it.
        metadata: kept with the Ray job.
        until: the part of the run that it ends after; None is the whole.
    """
    labels = object_labels(name, "job")
    if cluster.queue is not None:
        labels["kueue.x-k8s.io/queue-name"] = cluster.queue
    files = pods.Files("run", MOUNT, {"configMap": {"name": name}})
    spec: dict[str, Any] = {
        "entrypoint": run_command(f"{MOUNT}/{RUN_FILE}", out, until),
        "jobId": name,
        "metadata": dict(metadata or {}),
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": pods.submitter_template(cluster, pod_labels(name, "submitter")),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": cluster.keep_s,
        "backoffLimit": cluster.retries,
        "rayClusterSpec": cluster_spec(name, "job", cluster, files),
    }
    if cluster.queue is not None:
        # Kueue starts it once it has admitted it, however long that takes.
        spec["suspend"] = True
    else:
        # A pod that cannot be scheduled would wait for ever.
        spec["preRunningDeadlineSeconds"] = _START_S
    if cluster.time_limit_s is not None:
        spec["activeDeadlineSeconds"] = cluster.time_limit_s
    return {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }
