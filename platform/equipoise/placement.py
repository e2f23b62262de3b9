"""Where on a cluster the parts of a run go: what is measured to serving hardware, training beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from equipoise import hardware
from equipoise.errors import ConfigError
from equipoise.ray_runtime import MEASURED_SLOT, is_joined

SERVING_LABEL = "equipoise.io/hardware=serving"
"""Ray label of the nodes that stand for serving hardware, where the config names no other."""
_FIELD = "search.serving_nodes"


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is up."""

    name: str
    resources: dict[str, float]
    labels: dict[str, str]

    @property
    def cores(self) -> int:
        """CPUs that Ray may give away there."""
        return int(self.resources.get("CPU", 0))


@dataclass(frozen=True)
class Placement:
    """Label selectors of the two kinds of node, and how large their tasks are.

    Where no node is labelled, both selectors are empty: everything may run everywhere.
    """

    measuring: dict[str, str]
    training: dict[str, str]
    measuring_cores: int
    """CPUs of a task that has a measuring node for itself."""
    training_cores: int
    measuring_nodes: int
    training_nodes: tuple[Node, ...]

    @property
    def apart(self) -> bool:
        """Whether training and measuring have nodes of their own."""
        return bool(self.training)

    def measuring_task(self, *, timed: bool) -> dict[str, Any]:
        """Options of a Ray task that has a measuring node for itself.

        Args:
            timed: it holds the node's measured slot too.
        """
        slot = {"resources": {MEASURED_SLOT: 1}} if timed else {}
        return task_options(self.measuring, self.measuring_cores) | slot

    def training_task(self) -> dict[str, Any]:
        """Options of a Ray task that has a training node for itself."""
        return task_options(self.training, self.training_cores)

    def groups_at_once(self, workers: int, each: dict[str, float]) -> int:
        """How many groups of training workers find room at the same time; at least 1.

        A group of its own for each node at most, however small it is: what it leaves is for others.

        Args:
            each: Ray resources of a worker.
        """
        fits = [
            sum(node.resources.get(name, 0) for node in self.training_nodes) // (workers * amount)
            for name, amount in each.items()
            if amount and workers
        ]
        return max(1, int(min([len(self.training_nodes), *fits])))


def find_placement(label: str | None) -> Placement:
    """The placement on the nodes that are up now.

    Args:
        label: KEY=VALUE of the nodes that are serving hardware. None is those with `SERVING_LABEL`, or
            every node where none has it.

    Raises:
        ConfigError: no node has the label that was named, or none that has it offers the measured slot.
    """
    nodes = _alive()
    key, _, value = (label or SERVING_LABEL).partition("=")
    serving = [node for node in nodes if node.labels.get(key) == value]
    if not serving:
        if label is not None and is_joined():
            raise ConfigError(
                "no node of the cluster has this label",
                where=_FIELD,
                value=label,
                remedy=f"start its nodes with `ray start --labels={label}`, or leave the key out",
            )
        return _anywhere(nodes)
    slotted = [node for node in serving if node.resources.get(MEASURED_SLOT)]
    if not slotted:
        raise ConfigError(
            f"no node with this label offers {MEASURED_SLOT}, so candidates could never be timed",
            where=_FIELD,
            value=label or SERVING_LABEL,
            remedy=f"start its nodes with --resources='{{\"{MEASURED_SLOT}\": 1}}'",
        )
    others = [node for node in nodes if node not in serving and node.cores]
    # The largest alone: figures of machines that differ are not comparable.
    cores = _largest(slotted)
    return Placement(
        measuring={key: value},
        training={key: f"!{value}"} if others else {},
        measuring_cores=cores,
        training_cores=_largest(others or serving),
        measuring_nodes=sum(max(1, node.cores) == cores for node in slotted),
        training_nodes=tuple(others or [node for node in serving if node.cores]),
    )


def check_slot() -> None:
    """Check that a cluster that was joined has a node to time candidates on: Ray would wait for one.

    Raises:
        ConfigError: none of its nodes offers the measured slot.
    """
    nodes = _alive()
    if is_joined() and not any(node.resources.get(MEASURED_SLOT) for node in nodes):
        raise ConfigError(
            f"none of the cluster's {len(nodes)} nodes offers {MEASURED_SLOT}: candidates cannot be timed",
            where="RAY_ADDRESS",
            value=os.environ["RAY_ADDRESS"],
            remedy=f"start the nodes that time with --resources='{{\"{MEASURED_SLOT}\": 1}}'",
        )


def describe_measuring_hardware(label: str | None) -> dict[str, Any]:
    """`hardware.describe_hardware()` of a node that candidates are timed on.

    Asks a node of the cluster where one was joined; otherwise it is this machine.

    Raises:
        ConfigError: as `find_placement`.
    """
    if not is_joined():
        return hardware.describe_hardware()
    import ray

    def describe() -> dict[str, Any]:
        return hardware.describe_hardware()

    # Nothing is timed: it need not have the node for itself.
    alone = {"num_cpus": 0, "resources": {MEASURED_SLOT: 0.001}}
    task = ray.remote(**find_placement(label).measuring_task(timed=True) | alone)(describe)
    found: dict[str, Any] = ray.get(task.remote())
    return found


def this_node() -> str:
    """First eight digits of the Ray node that this process runs on, as the ledger names it."""
    import ray

    return str(ray.get_runtime_context().get_node_id())[:8]


def task_options(selector: dict[str, str], cores: int) -> dict[str, Any]:
    """Options of a Ray task of so many cores on nodes of some labels, whoever submits it.

    A trial's placement group, to which its tasks would go, holds no CPUs.
    """
    found: dict[str, Any] = {"num_cpus": cores, "max_retries": 1, "scheduling_strategy": "DEFAULT"}
    return found | ({"label_selector": selector} if selector else {})


def _anywhere(nodes: Sequence[Node]) -> Placement:
    able = tuple(node for node in nodes if node.cores)
    cores = _largest([node for node in able if node.resources.get(MEASURED_SLOT)] or able)
    return Placement(
        measuring={},
        training={},
        measuring_cores=cores,
        training_cores=cores,
        measuring_nodes=sum(node.cores >= cores for node in able),
        training_nodes=able,
    )


def _alive() -> list[Node]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(node["NodeID"][:8], node["Resources"], node.get("Labels") or {})
        for node in nodes
        if node["Alive"]
    ]


def _largest(nodes: Sequence[Node]) -> int:
    return max([1, *(node.cores for node in nodes)])
