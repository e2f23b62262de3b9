"""Pod templates: what each Ray pod runs on, within the Pod Security profile `restricted`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equipoise.config.cluster import ClusterConfig, Toleration, WorkerGroup
from equipoise.errors import ConfigError
from equipoise.ray_runtime import MEASURED_SLOT

WORKER_RESOURCES = {MEASURED_SLOT: "1"}
"""What Ray schedules on a worker beside its cores, memory and GPUs: one timing at a time."""

HEAD = "ray-head"
WORKER = "ray-worker"

SCRATCH = "/tmp"  # noqa: S108 - a volume of the pod's own
SCRATCH_MOUNT = {"name": "scratch", "mountPath": SCRATCH}

_USER = 1000
_NVIDIA = "nvidia.com/gpu"

# What must stand before Ray's first process: HAProxy in front of Serve, one Train, no telemetry.
_ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    # The root file system is read-only; everything that writes below a home writes here.
    "HOME": SCRATCH,
    "HF_HOME": f"{SCRATCH}/huggingface",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_CPU_ONLY = {"DS_ACCELERATOR": "cpu"}


@dataclass(frozen=True)
class Files:
    """A ConfigMap or Secret that a pod sees as read-only files.

    Args:
        volume: names it within the pod.
        path: the folder that they lie in.
        source: the volume's source, such as `{"configMap": {"name": "run"}}`.
    """

    volume: str
    path: str
    source: dict[str, Any]


def head_template(
    cluster: ClusterConfig, labels: dict[str, str], files: Files | None = None
) -> dict[str, Any]:
    """The head's pod template.

    Args:
        cluster: image, size, placement, storage.
        labels: of the pod.
        files: what it reads beside its storage.
    """
    head = cluster.head
    container = _container(cluster, HEAD, _resources(head.cpus, head.memory_gib, 0))
    container["ports"] = [
        {"name": "gcs-server", "containerPort": 6379},
        {"name": "dashboard", "containerPort": 8265},
        {"name": "client", "containerPort": 10001},
        {"name": "metrics", "containerPort": 8080},
        {"name": "serve", "containerPort": 8000},
    ]
    spec = _pod(cluster, container, head.node_selector, head.tolerations, files)
    # Ray's autoscaler runs beside the head and scales through the API server.
    spec["automountServiceAccountToken"] = cluster.autoscaling
    return {"metadata": {"labels": labels}, "spec": spec}


def worker_template(
    cluster: ClusterConfig, group: WorkerGroup, labels: dict[str, str], files: Files | None = None
) -> dict[str, Any]:
    """The pod template of one worker group."""
    container = _container(cluster, WORKER, _resources(group.cpus, group.memory_gib, group.gpus))
    container["ports"] = [
        {"name": "metrics", "containerPort": 8080},
        {"name": "serve", "containerPort": 8000},
    ]
    selector, tolerations = placement(group)
    spec = _pod(cluster, container, selector, tolerations, files)
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
    ]
    return {"metadata": {"labels": labels}, "spec": spec}


def submitter_template(cluster: ClusterConfig, labels: dict[str, str]) -> dict[str, Any]:
    """The pod that hands the job to the head; KubeRay's own default would miss the security settings."""
    container = _container(cluster, "ray-job-submitter", _resources(1, 1, 0))
    container["resources"] = {
        "requests": {"cpu": "500m", "memory": "256Mi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    }
    spec = _pod(cluster, container, cluster.head.node_selector, cluster.head.tolerations, None)
    return {"metadata": {"labels": labels}, "spec": spec}


def container_security() -> dict[str, Any]:
    """What `restricted` asks of a container, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def placement(group: WorkerGroup) -> tuple[dict[str, str], tuple[Toleration, ...]]:
    """Node selector and tolerations of a group, those of its spot and GPU nodes among them."""
    selector, tolerations = dict(group.node_selector), list(group.tolerations)
    if group.spot is not None:
        key, _, value = group.spot.partition("=")
        selector[key] = value
        tolerations.append(Toleration(key=key, operator="Exists", effect="NoSchedule"))
    if group.gpus:
        tolerations.append(Toleration(key=_NVIDIA, operator="Exists", effect="NoSchedule"))
    return selector, tuple(dict.fromkeys(tolerations))


def head_resources(cluster: ClusterConfig) -> dict[str, str]:
    """What Ray schedules on the head: nothing beside workers, else its cores and a slot for timings."""
    return {"CPU": "0"} if cluster.worker_groups else WORKER_RESOURCES


def require_image(cluster: ClusterConfig) -> str:
    """The image's name.

    Raises:
        ConfigError: none is given.
    """
    if not cluster.image:
        raise ConfigError(
            "pods need an image with Equipoise and Ray",
            where="cluster.image",
            remedy="build one from k8s/image and name it there, or with --image",
        )
    return cluster.image


def _container(cluster: ClusterConfig, name: str, resources: dict[str, str]) -> dict[str, Any]:
    environment = _ENVIRONMENT if _NVIDIA in resources else _ENVIRONMENT | _CPU_ONLY
    if cluster.storage.claim is not None:
        # Where a run goes whose folder nobody named; a head's own disk is lost with it.
        environment = environment | {"EQUIPOISE_RUNS": f"{cluster.storage.mount_path}/runs"}
    container: dict[str, Any] = {
        "name": name,
        "image": require_image(cluster),
        "imagePullPolicy": cluster.image_pull_policy,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": container_security(),
        "volumeMounts": [
            SCRATCH_MOUNT,
            {"name": "storage", "mountPath": cluster.storage.mount_path},
        ],
    }
    if cluster.storage.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": cluster.storage.secret}}]
    return container


def _pod(
    cluster: ClusterConfig,
    container: dict[str, Any],
    node_selector: dict[str, str],
    tolerations: tuple[Toleration, ...],
    files: Files | None,
) -> dict[str, Any]:
    storage: dict[str, Any] = {"name": "storage", "emptyDir": {}}
    if cluster.storage.claim is not None:
        storage = {"name": "storage", "persistentVolumeClaim": {"claimName": cluster.storage.claim}}
    spec: dict[str, Any] = {
        # Ray replaces a pod that ends; restarted in place it would keep a stale session.
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            # A claim of many files would otherwise be walked at every start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}, storage],
    }
    if files is not None:
        spec["volumes"].append({"name": files.volume, **files.source})
        container["volumeMounts"].append({"name": files.volume, "mountPath": files.path, "readOnly": True})
    optional = {
        "serviceAccountName": cluster.service_account,
        "priorityClassName": cluster.priority_class,
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
        "nodeSelector": node_selector,
        "tolerations": [found.model_dump(exclude_none=True) for found in tolerations],
    }
    spec.update({key: value for key, value in optional.items() if value})
    return spec


def _resources(cpus: float, memory_gib: float, gpus: int) -> dict[str, str]:
    found = {"cpu": f"{cpus:g}", "memory": f"{round(memory_gib * 1024)}Mi"}
    return {**found, _NVIDIA: str(gpus)} if gpus else found
