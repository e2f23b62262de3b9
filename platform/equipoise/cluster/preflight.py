"""What can be known of a cluster before anything is created in it."""

from __future__ import annotations

from equipoise.cluster.api_faults import INSTALL_KUBERAY
from equipoise.cluster.fit import misfits, over_quota
from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.config.cluster import ClusterConfig
from equipoise.errors import InputError


def require_kuberay(api: KubernetesApi, kinds: set[str]) -> None:
    """Raise InputError unless the server knows KubeRay's kinds."""
    missing = kinds - api.resources("ray.io/v1")
    if missing:
        raise InputError(
            f"KubeRay is missing: the API server does not know {', '.join(sorted(missing))} of ray.io/v1",
            where=api.where,
            remedy=INSTALL_KUBERAY,
        )


def check_room(api: KubernetesApi, cluster: ClusterConfig) -> list[str]:
    """Whether the pods can ever run; returns sentences that a person should read.

    Raises:
        InputError: a quota as such, or every node, is too small for the request.
    """
    return _check_quotas(api, cluster) + _check_nodes(api, cluster)


def _check_quotas(api: KubernetesApi, cluster: ClusterConfig) -> list[str]:
    try:
        never, now = over_quota(cluster, api.list_objects("ResourceQuota"))
    except InputError:
        return []  # Not allowed to look: admission will tell.
    if never:
        raise InputError(
            "more than the namespace's quota is asked for: " + "; ".join(never),
            where="cluster",
            remedy="ask for less, or have the quota raised",
        )
    return [f"it will wait: {sentence}" for sentence in now]


def _check_nodes(api: KubernetesApi, cluster: ClusterConfig) -> list[str]:
    try:
        nodes = api.list_objects("Node")
    except InputError:
        return ["nodes cannot be listed with these rights, so whether the pods fit is not known"]
    found = misfits(cluster, nodes)
    if found and not api.adds_nodes():
        raise InputError(
            "no node can ever take these pods: " + "; ".join(found),
            where="cluster",
            remedy="make the groups smaller, correct node_selector and tolerations, or add nodes",
        )
    return [f"needs a node that is not there yet: {sentence}" for sentence in found]
