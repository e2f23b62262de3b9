"""A run as the objects that KubeRay runs: a ConfigMap and a RayJob."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from equipoise.cluster.manifests import ray_job, run_config_map
from equipoise.cluster.manifests.ray_job import MOUNT, RUN_FILE
from equipoise.cluster.manifests.text import to_yaml
from equipoise.cluster.names import MANAGER
from equipoise.cluster.run_files import with_paths
from equipoise.config import RunConfig
from equipoise.config.cluster import ClusterConfig
from equipoise.errors import InputError

Manifest = dict[str, Any]

_PRICES_FILE = "prices.yaml"


def job_manifests(config: RunConfig, job_id: str, until: str | None = None) -> list[Manifest]:
    """Everything that submitting a run creates: its ConfigMap, then its RayJob.

    Raises:
        InputError: the config names a file or a run folder that pods cannot see.
    """
    cluster = config.cluster
    files: dict[str, str] = {}
    if cluster.worker_groups and cluster.storage.claim is None:
        raise InputError(
            "workers and head share the run folder, which takes a claim",
            where="cluster.storage.claim",
            remedy="name a PersistentVolumeClaim that several nodes can write to (ReadWriteMany)",
        )

    def place(field: str, path: Path) -> str:
        if field == "cost.prices":
            files[_PRICES_FILE] = _read(path, field)
            return f"{MOUNT}/{_PRICES_FILE}"
        if _within(str(path), cluster):
            return str(path)
        raise InputError(
            "is a file of this machine, which pods cannot read",
            where=field,
            value=str(path),
            remedy=f"put it on the claim and name it below {cluster.storage.mount_path}, or give a URI",
        )

    values = with_paths(config, place)
    values["output"] = out = run_folder(config)
    # The pods are what it asks for already.
    del values["cluster"]
    files[RUN_FILE] = to_yaml(values)
    return [
        run_config_map(job_id, files),
        ray_job(job_id, cluster, out, {"run": config.name, "manager": MANAGER}, until),
    ]


def run_folder(config: RunConfig) -> str:
    """The run folder as the pods see it.

    Raises:
        InputError: `output` lies elsewhere.
    """
    mount = config.cluster.storage.mount_path
    if config.output is None:
        return f"{mount}/runs/{config.name}"
    if not _within(config.output, config.cluster):
        raise InputError(
            "is no folder that pods can write to",
            where="output",
            value=config.output,
            remedy=f"leave it out, or name a folder below {mount}",
        )
    return config.output


def _within(path: str, cluster: ClusterConfig) -> bool:
    mount = PurePosixPath(cluster.storage.mount_path)
    found = PurePosixPath(path)
    return found.is_absolute() and ".." not in found.parts and found.is_relative_to(mount) and found != mount


def _read(path: Path, field: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=field, value=str(path)) from error
