"""What a namespace's quotas would refuse, said before pods are submitted."""

from __future__ import annotations

from typing import Any

from equipoise.cluster.fit import GPU, number, requests, shown
from equipoise.config.cluster import ClusterConfig

Manifest = dict[str, Any]

_GIB = 2**30


def over_quota(
    cluster: ClusterConfig, quotas: list[Manifest], default_class: str | None = ""
) -> tuple[list[str], list[str]]:
    """What the namespace's quotas would refuse.

    A quota whose scopes are of other pods is passed over, and so is one whose scopes cannot be judged.

    Args:
        cluster: whose pods they are.
        quotas: the namespace's ResourceQuotas.
        default_class: PriorityClass of pods that name none, "" where they have none, None if unknown.

    Returns:
        Sentences on requests above a quota as such, and on those that only what is used now prevents.
    """
    asked_for = requests(cluster)
    wanted = {
        "cpu": sum(request.count * request.cpus for request in asked_for),
        "memory": sum(request.count * request.memory_gib for request in asked_for) * _GIB,
        GPU: float(sum(request.count * request.gpus for request in asked_for)),
        "pods": float(sum(request.count for request in asked_for)),
    }
    priority_class = cluster.priority_class or default_class
    never, now = [], []
    for quota in quotas:
        if not all(_covers(scope, priority_class) for scope in _scopes(quota)):
            continue
        hard, used = (quota.get("status", {}).get(key, {}) for key in ("hard", "used"))
        for key, limit in hard.items():
            resource = key.removeprefix("requests.").removeprefix("limits.")
            asked = wanted.get(resource, 0.0)
            most, taken = number(limit), number(used.get(key, "0"))
            name = f"quota {quota['metadata']['name']}: {key}"
            if asked > most:
                never.append(f"{name} is {shown(resource, most)}, and {shown(resource, asked)} are asked for")
            elif asked > most - taken:
                now.append(
                    f"{name} has {shown(resource, most - taken)} left of {shown(resource, most)}, "
                    f"and {shown(resource, asked)} are asked for"
                )
    return never, now


def names_class(quota: Manifest) -> bool:
    """Whether a quota is of the pods of some PriorityClasses."""
    return any(scope["scopeName"] == "PriorityClass" for scope in _scopes(quota))


def _scopes(quota: Manifest) -> list[Manifest]:
    """What pods have to be for a quota to count them; all of it has to hold."""
    spec = quota.get("spec", {})
    plain = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes", [])]
    return [*plain, *spec.get("scopeSelector", {}).get("matchExpressions", [])]


def _covers(scope: Manifest, priority_class: str | None) -> bool:
    """Whether a scope is known to be one of our pods."""
    name, operator = scope["scopeName"], scope["operator"]
    if name == "PriorityClass":
        if priority_class is None:
            return False
        # A selector over labels: `NotIn` holds for what has none at all.
        among = priority_class in scope.get("values", [])
        return {
            "In": among,
            "NotIn": not among,
            "Exists": bool(priority_class),
            "DoesNotExist": not priority_class,
        }[operator]
    # Every container asks for something, and what bounds a job's time is the RayJob, not its pods.
    return name in ("NotBestEffort", "NotTerminating")
