"""What KubeRay and Kueue wrote about a RayJob, as a job's state."""

from __future__ import annotations

from typing import Any

from equipoise.cluster.jobs import Job, State, exit_code, short_message

Manifest = dict[str, Any]

_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_ENDED: dict[str, State] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}


def read_job(manifest: Manifest) -> Job:
    """A RayJob's state, from what KubeRay wrote into its status."""
    spec, status = manifest.get("spec", {}), manifest.get("status", {})
    phase, ray = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    message = short_message(str(status.get("message", "")))
    state: State = "starting"
    if phase in ("Suspended", "Suspending") or (spec.get("suspend") and phase in ("", "Initializing")):
        state = "suspended"
    elif phase in ("Failed", "ValidationFailed"):
        state = "stopped" if ray == "STOPPED" else "failed"
        message = ": ".join(part for part in (str(status.get("reason", "")), message) if part)
    elif phase == "Complete":
        state = _ENDED.get(ray, "succeeded")
    elif ray == "RUNNING" and phase == "Running":
        state = "running"
    return Job(
        id=manifest["metadata"]["name"],
        state=state,
        message=message,
        started=str(status.get("startTime") or ""),
        ended=str(status.get("endTime") or ""),
        exit_code=exit_code(message) if state == "failed" else None,
    )


def suspension(manifest: Manifest, said: str) -> str:
    """Why a RayJob is suspended; `said` is what Kueue says of it, or empty."""
    queue = manifest["metadata"].get("labels", {}).get(_QUEUE_LABEL)
    waits = f"suspended by Kueue until queue {queue} admits it" if queue else "suspended"
    return f"{waits}: {said}" if said else waits
