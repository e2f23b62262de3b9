"""Whether pods can ever be scheduled, said before they are submitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equipoise.cluster.manifests.pods import placement
from equipoise.config.cluster import ClusterConfig, Toleration

Manifest = dict[str, Any]

_GPU = "nvidia.com/gpu"
_GIB = 2**30
_BLOCKING = ("NoSchedule", "NoExecute")
# Set by the cluster itself while a node is away; they pass.
_PASSING = "node.kubernetes.io/"


@dataclass(frozen=True)
class Request:
    """What one kind of pod asks for."""

    name: str
    count: int
    cpus: float
    memory_gib: float
    gpus: int
    node_selector: dict[str, str]
    tolerations: tuple[Toleration, ...]

    @property
    def size(self) -> str:
        """For a person."""
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        return f"{self.cpus:g} cores, {self.memory_gib:g} GiB{gpus}"


def requests(cluster: ClusterConfig) -> list[Request]:
    """The pods that a cluster starts with."""
    head = cluster.head
    found = [Request("head", 1, head.cpus, head.memory_gib, 0, head.node_selector, head.tolerations)]
    for group in cluster.worker_groups:
        selector, tolerations = placement(group)
        found.append(
            Request(
                group.name, group.min_workers, group.cpus, group.memory_gib, group.gpus, selector, tolerations
            )
        )
    return found


def misfits(cluster: ClusterConfig, nodes: list[Manifest]) -> list[str]:
    """A sentence for each kind of pod that no node could take even if it were empty."""
    found = []
    for request in requests(cluster):
        suited = [node for node in nodes if _suits(request, node)]
        if not suited:
            labels = ", ".join(f"{key}={value}" for key, value in request.node_selector.items())
            found.append(
                f"{request.name}: none of {len(nodes)} nodes has the labels ({labels or 'any'}) "
                "and no taint that the pods do not stand"
            )
        elif not any(_holds(request, node) for node in suited):
            largest = max(suited, key=lambda node: _allocatable(node, "cpu"))
            found.append(
                f"{request.name}: each pod asks for {request.size}, and the largest of {len(suited)} suited "
                f"nodes offers {_offer(largest)}"
            )
    return found


def over_quota(cluster: ClusterConfig, quotas: list[Manifest]) -> tuple[list[str], list[str]]:
    """What the namespace's quotas would refuse.

    Returns:
        Sentences on requests above a quota as such, and on those that only what is used now prevents.
    """
    wanted = {
        "cpu": sum(request.count * request.cpus for request in requests(cluster)),
        "memory": sum(request.count * request.memory_gib for request in requests(cluster)) * _GIB,
        _GPU: float(sum(request.count * request.gpus for request in requests(cluster))),
        "pods": float(sum(request.count for request in requests(cluster))),
    }
    never, now = [], []
    for quota in quotas:
        hard, used = (quota.get("status", {}).get(key, {}) for key in ("hard", "used"))
        for key, limit in hard.items():
            resource = key.removeprefix("requests.").removeprefix("limits.")
            asked = wanted.get(resource, 0.0)
            most, taken = _number(limit), _number(used.get(key, "0"))
            name = f"quota {quota['metadata']['name']}: {key}"
            if asked > most:
                never.append(
                    f"{name} is {_shown(resource, most)}, and {_shown(resource, asked)} are asked for"
                )
            elif asked > most - taken:
                now.append(
                    f"{name} has {_shown(resource, most - taken)} left of {_shown(resource, most)}, "
                    f"and {_shown(resource, asked)} are asked for"
                )
    return never, now


def _suits(request: Request, node: Manifest) -> bool:
    labels = node["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in request.node_selector.items()):
        return False
    return all(
        taint.get("effect") not in _BLOCKING
        or taint["key"].startswith(_PASSING)
        or any(_tolerates(entry, taint) for entry in request.tolerations)
        for taint in node.get("spec", {}).get("taints", [])
    )


def _tolerates(toleration: Toleration, taint: Manifest) -> bool:
    if toleration.effect is not None and toleration.effect != taint.get("effect"):
        return False
    if toleration.key is not None and toleration.key != taint["key"]:
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == taint.get("value", "")


def _holds(request: Request, node: Manifest) -> bool:
    return (
        request.cpus <= _allocatable(node, "cpu")
        and request.memory_gib * _GIB <= _allocatable(node, "memory")
        and request.gpus <= _allocatable(node, _GPU)
    )


def _allocatable(node: Manifest, resource: str) -> float:
    return _number(node.get("status", {}).get("allocatable", {}).get(resource, "0"))


def _number(quantity: str) -> float:
    """A Kubernetes quantity, such as 500m or 8Gi."""
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(quantity))  # type: ignore[no-untyped-call]


def _offer(node: Manifest) -> str:
    gpus = _allocatable(node, _GPU)
    shown = f"{_allocatable(node, 'cpu'):g} cores, {_allocatable(node, 'memory') / _GIB:.1f} GiB"
    return f"{shown}, {gpus:g} GPUs" if gpus else shown


def _shown(resource: str, value: float) -> str:
    return f"{value / _GIB:.1f} GiB" if resource == "memory" else f"{value:g}"
