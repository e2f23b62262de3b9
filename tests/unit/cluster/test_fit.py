from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.cluster.fit import misfits, over_quota, requests
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
    assert misfits(cluster, [node("8", "32Gi", "1")]) == []
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


@given(
    cpus=st.integers(1, 64), workers=st.integers(1, 50), used=st.integers(0, 1000), hard=st.integers(1, 1000)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_quota_refuses_exactly_what_it_cannot_hold(
    cpus: int, workers: int, used: int, hard: int, cluster_config: Callable[..., ClusterConfig]
) -> None:
    group = {"cpus": cpus, "min_workers": workers, "max_workers": workers}
    cluster = cluster_config(worker_groups=[group])
    asked = 2 + cpus * workers
    assert sum(request.count * request.cpus for request in requests(cluster)) == asked
    status = {"hard": {"requests.cpu": str(hard)}, "used": {"requests.cpu": f"{used * 1000}m"}}
    never, now = over_quota(cluster, [{"metadata": {"name": "q"}, "status": status}])
    assert bool(never) == (asked > hard)
    assert bool(now) == (asked <= hard and asked > hard - used)
