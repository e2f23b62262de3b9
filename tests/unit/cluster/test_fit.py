from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.cluster.fit import misfits
from equipoise.config.cluster import ClusterConfig

Manifest = dict[str, Any]


def node(cpu: str, memory: str = "64Gi", gpus: str = "0", **spec: Any) -> Manifest:
    return {
        "metadata": {"name": "n", "labels": spec.pop("labels", {})},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpus}},
    }


def test_a_pod_has_to_fit_in_every_respect_on_one_node(cluster_config: Callable[..., ClusterConfig]) -> None:
    cluster = cluster_config(worker_groups=[{"name": "w", "cpus": 8, "memory_gib": 32, "gpus": 1}])
    assert misfits(cluster, [node("10", "40Gi", "1")]) == []
    # Three nodes of which each is short of something do not make up one that is not.
    short = [node("4", "64Gi", "4"), node("64", "16Gi", "4"), node("64", "64Gi", "0")]
    [sentence] = misfits(cluster, short)
    assert sentence.startswith("w: each pod asks for 8 cores, 32 GiB, 1 GPUs")


@pytest.mark.parametrize(
    ("taint", "fits"),
    [
        ({"key": "team", "value": "ml", "effect": "NoSchedule"}, True),
        ({"key": "team", "value": "web", "effect": "NoSchedule"}, False),
        ({"key": "team", "value": "ml", "effect": "NoExecute"}, False),
        ({"key": "team", "value": "web", "effect": "PreferNoSchedule"}, True),
        ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, True),
    ],
)
def test_taints_are_stood_as_the_scheduler_reads_them(
    taint: Manifest, fits: bool, cluster_config: Callable[..., ClusterConfig]
) -> None:
    toleration = {"key": "team", "value": "ml", "effect": "NoSchedule"}
    cluster = cluster_config(
        head={"tolerations": [toleration]}, worker_groups=[{"tolerations": [toleration]}]
    )
    assert (misfits(cluster, [node("64", taints=[taint])]) == []) is fits


def test_labels_have_to_be_there(cluster_config: Callable[..., ClusterConfig]) -> None:
    cluster = cluster_config(worker_groups=[{"name": "w", "node_selector": {"pool": "gpu"}}])
    assert misfits(cluster, [node("64", labels={"pool": "gpu"})]) == []
    [sentence] = misfits(cluster, [node("64", labels={"pool": "cpu"})])
    assert "none of 1 nodes has the labels (pool=gpu)" in sentence


def test_the_pods_of_a_group_have_to_fit_all_at_once(cluster_config: Callable[..., ClusterConfig]) -> None:
    group = {"name": "w", "cpus": 8, "memory_gib": 4, "min_workers": 50, "max_workers": 50}
    cluster = cluster_config(worker_groups=[group])
    assert misfits(cluster, [node("16")]) == [
        "w: 50 pods of 8 cores, 4 GiB each are asked for, and the 1 node that they may run on "
        "would hold 2 of them, if empty"
    ]
    assert misfits(cluster, [node("16") for _ in range(26)]) == []
    # Those that scale start with the least.
    assert misfits(cluster_config(worker_groups=[{**group, "min_workers": 1}]), [node("16")]) == []


def test_nodes_of_other_labels_hold_none_of_them(cluster_config: Callable[..., ClusterConfig]) -> None:
    group = {"name": "w", "cpus": 8, "min_workers": 4, "max_workers": 4, "node_selector": {"pool": "a"}}
    nodes = [node("16", labels={"pool": "a"}), *(node("64", labels={"pool": "b"}) for _ in range(9))]
    [sentence] = misfits(cluster_config(worker_groups=[group]), nodes)
    assert "the 1 node that they may run on would hold 2 of them" in sentence


def test_head_and_workers_have_to_fit_together(cluster_config: Callable[..., ClusterConfig]) -> None:
    cluster = cluster_config(worker_groups=[{"cpus": 16, "memory_gib": 8}])
    [sentence] = misfits(cluster, [node("16")])
    assert sentence == ("all pods together ask for 18 cores, and the 1 node that they may run on offer 16")
    assert misfits(cluster, [node("16"), node("2")]) == []


@given(
    cpus=st.integers(1, 16),
    workers=st.integers(1, 12),
    offered=st.lists(st.integers(1, 64), min_size=1, max_size=6),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_can_be_placed_is_never_refused(
    cpus: int, workers: int, offered: list[int], cluster_config: Callable[..., ClusterConfig]
) -> None:
    """Whatever the simplest of schedulers places, on nodes in order, fits."""
    group = {"cpus": cpus, "memory_gib": 1, "min_workers": workers, "max_workers": workers}
    cluster = cluster_config(worker_groups=[group])
    free = list(offered)
    for asked in [cluster.head.cpus, *[cpus] * workers]:
        place = next((at for at, left in enumerate(free) if left >= asked), None)
        if place is None:
            return
        free[place] -= asked
    assert misfits(cluster, [node(str(each)) for each in offered]) == []
