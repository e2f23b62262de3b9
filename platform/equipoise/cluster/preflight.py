"""What can be known of a cluster before anything is created in it."""

from __future__ import annotations

from equipoise.cluster.api_faults import INSTALL_KUBERAY
from equipoise.cluster.fit import misfits
from equipoise.cluster.kubernetes_api import KubernetesApi, Manifest
from equipoise.cluster.quotas import names_class, over_quota
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
        InputError: a quota as such, or every node, is too small for the request, or all nodes together.
    """
    return _check_quotas(api, cluster) + _check_nodes(api, cluster)


def _check_quotas(api: KubernetesApi, cluster: ClusterConfig) -> list[str]:
    try:
        quotas = api.list_objects("ResourceQuota")
    except InputError:
        return []  # Not allowed to look: admission will tell.
    never, now = over_quota(cluster, quotas, _default_class(api, cluster, quotas))
    if never:
        raise InputError(
            "more than the namespace's quota is asked for: " + "; ".join(never),
            where="cluster",
            remedy="ask for less, or have the quota raised",
        )
    return [f"it will wait: {sentence}" for sentence in now]


def _default_class(api: KubernetesApi, cluster: ClusterConfig, quotas: list[Manifest]) -> str | None:
    """PriorityClass of pods that name none; asked for only where a quota depends on it."""
    if cluster.priority_class or not any(map(names_class, quotas)):
        return ""
    try:
        classes = api.list_objects("PriorityClass")
    except InputError:
        return None
    defaults = [found for found in classes if found.get("globalDefault")]
    # Where several are, the lowest counts.
    lowest = min(defaults, key=lambda found: int(found["value"]), default=None)
    return str(lowest["metadata"]["name"]) if lowest else ""


def _check_nodes(api: KubernetesApi, cluster: ClusterConfig) -> list[str]:
    try:
        nodes = api.list_objects("Node")
    except InputError:
        return ["nodes cannot be listed with these rights, so whether the pods fit is not known"]
    found = misfits(cluster, nodes)
    if found and not api.adds_nodes():
        raise InputError(
            "the nodes can never take these pods: " + "; ".join(found),
            where="cluster",
            remedy="make the groups smaller, correct node_selector and tolerations, or add nodes",
        )
    return [f"needs nodes that are not there yet: {sentence}" for sentence in found]
