"""Why pods do not start, out of their own status and their events."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]

_PATIENT = {"ContainerCreating", "PodInitializing"}
_PULLS = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"}
_LONGEST = 300


def start_reasons(pods: list[Manifest], events: list[Manifest], owners: set[str]) -> list[str]:
    """Why the pods of a job or a service are not all up, the most telling first.

    KubeRay warns on its RayCluster about pods that it cannot even create, by a quota for instance, and
    repeats the warning; one that is older than the newest pod has been overcome.

    Args:
        pods: that are there.
        events: of their namespace.
        owners: names of the job or service and of its RayClusters.
    """
    newest = max((str(pod["metadata"].get("creationTimestamp", "")) for pod in pods), default="")
    warning = newest_warning(events, owners, newest)
    return [*([warning] if warning else []), *pod_reasons(pods, events)]


def pod_reasons(pods: list[Manifest], events: list[Manifest]) -> list[str]:
    """One sentence for each pod that is not up, the newest warning about it included; sorted.

    Args:
        pods: the pods of one Ray cluster.
        events: of their namespace; those about other objects are left out.
    """
    found = [sentence for pod in pods if (sentence := _reason(pod, events))]
    return sorted(found)


def newest_warning(events: list[Manifest], names: set[str], since: str = "") -> str:
    """The newest Warning about one of the named objects, as `REASON: MESSAGE`; empty where there is none.

    Args:
        events: of a namespace.
        names: of the objects.
        since: ISO 8601 in UTC; earlier ones are left out, by whole seconds.
    """
    about = [
        event
        for event in events
        if event.get("type") == "Warning"
        and event.get("involvedObject", {}).get("name") in names
        and _time(event)[:19] >= since[:19]
    ]
    if not about:
        return ""
    newest = max(about, key=_time)
    return _short(f"{newest.get('reason', '')}: {newest.get('message', '')}")


def fatal_reason(pods: list[Manifest]) -> str:
    """Why a pod will never start by waiting: its image or its configuration; empty where none is so."""
    for pod in pods:
        for status in _statuses(pod):
            waiting = status.get("state", {}).get("waiting", {})
            if waiting.get("reason") in (
                "InvalidImageName",
                "CreateContainerConfigError",
                "ErrImageNeverPull",
            ):
                return _short(f"{waiting['reason']}: {waiting.get('message', '')}")
    return ""


def pull_reason(pods: list[Manifest]) -> str:
    """What prevents that an image is pulled; empty where nothing does."""
    for pod in pods:
        for status in _statuses(pod):
            waiting = status.get("state", {}).get("waiting", {})
            if waiting.get("reason") in _PULLS:
                return _short(f"{waiting['reason']}: {waiting.get('message', '')}")
    return ""


def _reason(pod: Manifest, events: list[Manifest]) -> str:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if status.get("phase") in ("Succeeded", "Running") and all(
        entry.get("ready") or entry.get("state", {}).get("terminated", {}).get("exitCode") == 0
        for entry in _statuses(pod)
    ):
        return ""
    parts = []
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            parts.append(f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}")
    for entry in _statuses(pod):
        state = entry.get("state", {})
        waiting, ended = state.get("waiting", {}), state.get("terminated", {})
        if waiting.get("reason") and waiting["reason"] not in _PATIENT:
            parts.append(f"{waiting['reason']}: {waiting.get('message', '')}")
        if ended and ended.get("exitCode") != 0:
            parts.append(f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode')}")
    parts = parts or [part for part in [newest_warning(events, {name})] if part]
    if not parts:
        return ""
    return _short(f"pod {name}: {parts[0]}")


def _statuses(pod: Manifest) -> list[Manifest]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _time(event: Manifest) -> str:
    # ISO 8601 in UTC sorts as text; newer clusters fill eventTime only.
    series = event.get("series") or {}
    return str(
        event.get("lastTimestamp")
        or series.get("lastObservedTime")
        or event.get("eventTime")
        or event.get("metadata", {}).get("creationTimestamp")
        or ""
    )


def _short(text: str) -> str:
    line = " ".join(text.split()).rstrip(": ")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
