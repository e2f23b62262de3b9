"""Which quotas count a cluster's pods, and what they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.cluster.fit import requests
from equipoise.cluster.quotas import over_quota
from equipoise.config.cluster import ClusterConfig

Manifest = dict[str, Any]


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


def verdict(spec: Manifest, cluster: ClusterConfig, default_class: str | None = "") -> bool:
    """Whether a quota that nothing fits into refuses the pods."""
    status = {"hard": {"requests.cpu": "0"}, "used": {}}
    never, _ = over_quota(
        cluster, [{"metadata": {"name": "q"}, "spec": spec, "status": status}], default_class
    )
    return bool(never)


@pytest.mark.parametrize(
    ("scope", "counts"),
    [
        ("NotBestEffort", True),
        ("BestEffort", False),
        ("NotTerminating", True),
        ("Terminating", False),
        ("CrossNamespacePodAffinity", False),
        ("SomethingOfTomorrow", False),
    ],
)
def test_a_quota_counts_pods_of_its_scopes_only(
    scope: str, counts: bool, cluster_config: Callable[..., ClusterConfig]
) -> None:
    selector = {"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": "Exists"}]}}
    for spec in ({"scopes": [scope]}, selector, {"scopes": ["NotBestEffort", scope]}):
        assert verdict(spec, cluster_config()) is counts
    assert not verdict({"scopes": ["BestEffort"], **selector}, cluster_config())


@pytest.mark.parametrize(
    ("operator", "values", "of_batch", "of_none", "of_unknown"),
    [
        ("In", ["batch"], True, False, False),
        ("In", ["urgent"], False, False, False),
        ("NotIn", ["urgent"], True, True, False),
        ("NotIn", ["batch"], False, True, False),
        ("Exists", [], True, False, False),
        ("DoesNotExist", [], False, True, False),
    ],
)
def test_a_quota_of_priority_classes_counts_pods_as_admission_does(
    operator: str,
    values: list[str],
    of_batch: bool,
    of_none: bool,
    of_unknown: bool,
    cluster_config: Callable[..., ClusterConfig],
) -> None:
    expression = {"scopeName": "PriorityClass", "operator": operator, "values": values}
    spec = {"scopeSelector": {"matchExpressions": [expression]}}
    assert verdict(spec, cluster_config(priority_class="batch")) is of_batch
    assert verdict(spec, cluster_config(), "batch") is of_batch
    assert verdict(spec, cluster_config()) is of_none
    assert verdict(spec, cluster_config(), None) is of_unknown
