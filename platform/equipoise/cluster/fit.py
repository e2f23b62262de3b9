"""Whether pods can ever be scheduled, said before they are submitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equipoise.cluster.manifests.pods import placement
from equipoise.config.cluster import ClusterConfig, Toleration

Manifest = dict[str, Any]

GPU = "nvidia.com/gpu"
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
    """A sentence for each kind of pod that the nodes could not take even if they were empty.

    Every pod has to fit on a node, the pods of a kind all at once, and those of every kind together.
    """
    found = []
    wanted = requests(cluster)
    for request in wanted:
        suited = [node for node in nodes if _suits(request, node)]
        if not suited:
            labels = ", ".join(f"{key}={value}" for key, value in request.node_selector.items())
            found.append(
                f"{request.name}: none of {len(nodes)} nodes has the labels ({labels or 'any'}) "
                "and no taint that the pods do not stand"
            )
        elif not any(_how_many(request, node) for node in suited):
            largest = max(suited, key=lambda node: _allocatable(node, "cpu"))
            found.append(
                f"{request.name}: each pod asks for {request.size}, and the largest of {len(suited)} suited "
                f"nodes offers {_offer(largest)}"
            )
        elif (most := sum(_how_many(request, node) for node in suited)) < request.count:
            found.append(
                f"{request.name}: {request.count} pods of {request.size} each are asked for, and the "
                f"{_nodes(suited)} that they may run on would hold {most} of them, if empty"
            )
    return found or _too_much_together(wanted, nodes)


def _too_much_together(wanted: list[Request], nodes: list[Manifest]) -> list[str]:
    """What all kinds of pods ask for, held against all nodes that any of them may run on."""
    suited = [node for node in nodes if any(_suits(request, node) for request in wanted if request.count)]
    asked = {
        "cpu": sum(request.count * request.cpus for request in wanted),
        "memory": sum(request.count * request.memory_gib for request in wanted) * _GIB,
        GPU: float(sum(request.count * request.gpus for request in wanted)),
    }
    words = {"cpu": "cores", "memory": "of memory", GPU: "GPUs"}
    return [
        f"all pods together ask for {shown(resource, amount)} {words[resource]}, and the {_nodes(suited)} "
        f"that they may run on offer {shown(resource, most)}"
        for resource, amount in asked.items()
        if amount > (most := sum(_allocatable(node, resource) for node in suited))
    ]


def _how_many(request: Request, node: Manifest) -> int:
    """Pods of a kind that an empty node holds."""
    asked = {"cpu": request.cpus, "memory": request.memory_gib * _GIB, GPU: request.gpus}
    return min(int(_allocatable(node, resource) // each) for resource, each in asked.items() if each)


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


def _allocatable(node: Manifest, resource: str) -> float:
    return number(node.get("status", {}).get("allocatable", {}).get(resource, "0"))


def number(quantity: str) -> float:
    """A Kubernetes quantity, such as 500m or 8Gi."""
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(quantity))  # type: ignore[no-untyped-call]


def _nodes(found: list[Manifest]) -> str:
    return "1 node" if len(found) == 1 else f"{len(found)} nodes"


def _offer(node: Manifest) -> str:
    gpus = _allocatable(node, GPU)
    shown = f"{_allocatable(node, 'cpu'):g} cores, {_allocatable(node, 'memory') / _GIB:.1f} GiB"
    return f"{shown}, {gpus:g} GPUs" if gpus else shown


def shown(resource: str, value: float) -> str:
    """An amount of a resource, for a person."""
    return f"{value / _GIB:.1f} GiB" if resource == "memory" else f"{value:g}"
