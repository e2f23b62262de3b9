"""RayCluster, and the cluster spec that RayJob and RayService embed."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from equipoise.cluster.manifests import pods
from equipoise.cluster.names import object_labels, pod_labels
from equipoise.config.cluster import ClusterConfig, WorkerGroup

API_VERSION = "ray.io/v1"
RAY_VERSION = metadata.version("ray")
"""The Ray that this Equipoise is built for; the image must hold the same."""

_IDLE_S = 120


def ray_cluster(name: str, cluster: ClusterConfig) -> dict[str, Any]:
    """A RayCluster for jobs of several runs."""
    labels = object_labels(name, "cluster")
    if cluster.queue is not None:
        labels["kueue.x-k8s.io/queue-name"] = cluster.queue
    return {
        "apiVersion": API_VERSION,
        "kind": "RayCluster",
        "metadata": {"name": name, "labels": labels},
        "spec": cluster_spec(name, "cluster", cluster),
    }


def cluster_spec(
    name: str, component: str, cluster: ClusterConfig, files: pods.Files | None = None
) -> dict[str, Any]:
    """The spec of a Ray cluster: head, worker groups, token auth, autoscaler."""
    labels = pod_labels(name, component)
    spec: dict[str, Any] = {
        "rayVersion": RAY_VERSION,
        # Written out: an empty authOptions makes a Secret and leaves authentication off.
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {},
            "resources": pods.head_resources(cluster),
            "template": pods.head_template(cluster, labels, files),
        },
        "workerGroupSpecs": [_group(group, cluster, labels, files) for group in cluster.worker_groups],
    }
    if cluster.autoscaling:
        spec["enableInTreeAutoscaling"] = True
        spec["autoscalerOptions"] = {
            "version": "v2",
            "idleTimeoutSeconds": _IDLE_S,
            "upscalingMode": "Default",
            "resources": {
                "requests": {"cpu": "100m", "memory": "512Mi"},
                "limits": {"cpu": "500m", "memory": "512Mi"},
            },
            "securityContext": pods.container_security(),
            # Its root is read-only too, and KubeRay mounts Ray's logs alone.
            "env": [{"name": "HOME", "value": pods.SCRATCH}],
            "volumeMounts": [pods.SCRATCH_MOUNT],
        }
    return spec


def _group(
    group: WorkerGroup, cluster: ClusterConfig, labels: dict[str, str], files: pods.Files | None
) -> dict[str, Any]:
    own = {**labels, "equipoise/group": group.name}
    found: dict[str, Any] = {
        "groupName": group.name,
        "minReplicas": group.min_workers,
        "maxReplicas": group.max_workers,
        "rayStartParams": {},
        "resources": pods.WORKER_RESOURCES,
        "template": pods.worker_template(cluster, group, own, files),
    }
    if group.min_workers == group.max_workers:
        # Where Ray's autoscaler decides, the field is its own.
        found["replicas"] = group.min_workers
    if group.spot is not None:
        found["labels"] = {"ray.io/market-type": "spot"}
    return found
