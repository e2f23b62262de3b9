"""Bundles as RayServices on Kubernetes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from equipoise import storage
from equipoise.bundle import locate_bundle, open_bundle
from equipoise.bundle_fetch import find_bundle
from equipoise.cluster.bundle_upload import upload_bundle
from equipoise.cluster.image_pulls import ImagePulls
from equipoise.cluster.kubernetes_api import KubernetesApi, Manifest
from equipoise.cluster.left_behind import naming
from equipoise.cluster.manifests import ray_service
from equipoise.cluster.names import MANAGER, service_name
from equipoise.cluster.preflight import check_room, require_kuberay
from equipoise.cluster.reasons import fatal_reason, start_reasons
from equipoise.config.cluster import ClusterConfig
from equipoise.config.serving import ServingConfig
from equipoise.errors import EquipoiseError, InputError, ServiceError

BUNDLE = "equipoise/bundle"
"""Annotation that says which bundle a deployment is of."""

_OURS = f"app.kubernetes.io/managed-by={MANAGER}"
_POLL_S = 3.0
_NEVER = "it can never start"

Phase = Literal["starting", "ready", "updating", "failing"]


@dataclass(frozen=True)
class Service:
    """A deployment, as KubeRay sees it."""

    name: str
    phase: Phase
    bundle: str
    message: str
    address: str
    """Where it answers within the cluster."""

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return asdict(self)


def shared_bundle(location: str, cluster: ClusterConfig, upload: bool = True) -> tuple[str, str]:
    """Where every pod can read a bundle, and what to name its deployment after.

    A URI and a path on the claim are used as they are; a bundle of this machine is verified and
    uploaded to `cluster.storage.bucket`.

    Args:
        location: run folder or bundle, a path or a URI.
        cluster: its storage.
        upload: False gives the place without writing anything.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        InputError: it is on this machine only, and no bucket is configured.
    """
    if storage.is_uri(location):
        folder, manifest = find_bundle(location)
        return folder, manifest.name
    if _on_claim(location, cluster):
        # Pods see it, this machine need not: which of the two it is, each replica finds out.
        path = PurePosixPath(location)
        return str(path), path.parent.name if path.name == "bundle" else path.name
    bundle = open_bundle(locate_bundle(location))
    if cluster.storage.bucket is None:
        require_shared(location, cluster)
    return upload_bundle(bundle, str(cluster.storage.bucket), write=upload), bundle.manifest.name


def require_shared(location: str, cluster: ClusterConfig) -> None:
    """Raise InputError unless every pod can read a location: a URI, or a path on the claim."""
    if not storage.is_uri(location) and not _on_claim(location, cluster):
        raise InputError(
            "is on this machine, where pods cannot read it",
            where=location,
            remedy="set cluster.storage.bucket, or copy it to the claim and name it below "
            f"{cluster.storage.mount_path}",
        )


def _on_claim(location: str, cluster: ClusterConfig) -> bool:
    return PurePosixPath(location).is_relative_to(cluster.storage.mount_path)


def service_manifest(bundle: str, name: str, cluster: ClusterConfig, serving: ServingConfig) -> Manifest:
    """The RayService of a bundle that pods can read."""
    manifest = ray_service(service_name(name), bundle, cluster, serving)
    manifest["metadata"]["annotations"] = {BUNDLE: bundle}
    return manifest


class Services:
    """RayServices of Equipoise's in one namespace."""

    def __init__(self, api: KubernetesApi) -> None:
        self.api = api
        self._pulls = ImagePulls()

    def check(self, manifest: Manifest, cluster: ClusterConfig, *, force: bool = False) -> list[str]:
        """What can be known before anything is created; returns sentences that a person should read.

        The server checks the object too, by a dry run of its own.

        Raises:
            InputError: KubeRay is missing, the server refuses the object, or a quota or every node is too
                small for the pods.
        """
        require_kuberay(self.api, {"RayService", "RayCluster"})
        found = check_room(self.api, cluster)
        self.api.apply(manifest, dry_run=True, force=force)
        return found

    def deploy(self, manifest: Manifest, *, force: bool = False) -> str:
        """Create a deployment, or replace it without downtime.

        Returns:
            Its name, as `RayService NAMESPACE/NAME`.

        Raises:
            InputError: the cluster refuses it.
            ServiceError: it was changed by someone else in between.
        """
        name = manifest["metadata"]["name"]
        held = self.api.get("RayService", name)
        version = held["metadata"].get("resourceVersion") if held is not None else None
        self.api.apply(manifest, force=force, resource_version=version)
        return f"RayService {self.api.namespace}/{name}"

    def find(self, name: str) -> Service | None:
        """A deployment, with the reason that its pods do not start."""
        found = self.api.get("RayService", name)
        if found is None:
            return None
        service = read_service(found, self.api.namespace)
        if service.phase == "ready":
            return service
        pods = self.api.list_objects("Pod", labels=f"app.kubernetes.io/instance={name}")
        fatal = fatal_reason(pods) or self._pulls.given_up(name, pods)
        if fatal:
            return _with(service, "failing", f"{_NEVER}: {fatal}")
        events = self.api.list_objects("Event", fields="type=Warning")
        reasons = start_reasons(pods, events, {name, *_clusters(found)})
        if service.phase == "failing" and service.message:
            reasons.insert(0, service.message)
        return _with(service, service.phase, "; ".join(reasons[:2]) or service.message)

    def list_services(self) -> list[Service]:
        """Every deployment."""
        found = self.api.list_objects("RayService", labels=_OURS)
        return [read_service(manifest, self.api.namespace) for manifest in found]

    def wait(self, name: str, bundle: str, tell: Callable[[str], None], timeout_s: float) -> Service:
        """Wait until a deployment serves its bundle, saying what it waits for.

        Where the API server does not answer, that is said, and it is asked again until the time is over.

        Raises:
            InputError: it can never start, or it was removed.
            ServiceError: the time is over, or another deployment took its place.
        """
        deadline, said = time.monotonic() + timeout_s, ""
        remove = f"equipoise undeploy {name} {self.api.options}"
        while True:
            line = ""
            try:
                service = self.find(name)
            except ServiceError as error:
                service, line = None, f"no contact: {error.what}"
            except EquipoiseError as error:
                raise naming(error, [f"RayService {self.api.namespace}/{name}"], remove) from error
            if service is not None:
                self._require(service, bundle, remove)
                if service.phase == "ready":
                    return service
                line = f"{service.phase}: {service.message or 'waits for its pods'}"
            elif not line:
                raise InputError("was removed while it came up", where=name)
            if line != said:
                said = line
                tell(f"{name} {line}")
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"not ready after {timeout_s:.0f} s; {line}",
                    where=name,
                    remedy=f"it goes on: equipoise status {name} {self.api.options}; `{remove}` removes it",
                )
            time.sleep(_POLL_S)

    def undeploy(self, name: str) -> list[str]:
        """Remove a deployment and everything it owns; names what was removed."""
        return [f"RayService {self.api.namespace}/{name}"] if self.api.delete("RayService", name) else []

    @staticmethod
    def _require(service: Service, bundle: str, remove: str) -> None:
        """Raise unless it is of the bundle and can still start."""
        if service.bundle != bundle:
            raise ServiceError(
                f"another deployment took its place: {service.bundle}",
                where=service.name,
                remedy="agree who deploys, then repeat the command",
            )
        if service.message.startswith(_NEVER):
            raise InputError(
                service.message, where=service.name, remedy=f"correct it and repeat, or {remove}"
            )


def read_service(manifest: Manifest, namespace: str) -> Service:
    """A deployment's phase, from what KubeRay wrote into its status."""
    name, status = manifest["metadata"]["name"], manifest.get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", [])}
    ready = conditions.get("Ready", {}).get("status") == "True"
    upgrading = conditions.get("UpgradeInProgress", {}).get("status") == "True"
    seen = status.get("observedGeneration", 0) >= manifest["metadata"].get("generation", 0)
    messages = [
        entry.get("message", "")
        for key in ("pendingServiceStatus", "activeServiceStatus")
        for application in status.get(key, {}).get("applicationStatuses", {}).values()
        for entry in [application, *application.get("serveDeploymentStatuses", {}).values()]
        if entry.get("status") in ("DEPLOY_FAILED", "UNHEALTHY")
    ]
    phase: Phase = "starting"
    if messages:
        phase = "failing"
    elif ready:
        phase = "updating" if upgrading or not seen else "ready"
    said = next((part for part in messages if part), "") or conditions.get("Ready", {}).get("message", "")
    return Service(
        name=name,
        phase=phase,
        bundle=manifest["metadata"].get("annotations", {}).get(BUNDLE, ""),
        message="" if phase == "ready" else " ".join(str(said).split())[:300],
        address=f"http://{name}-serve-svc.{namespace}:8000",
    )


def _clusters(manifest: Manifest) -> set[str]:
    """The RayClusters of a RayService: the one that serves and the one that comes up."""
    parts = (manifest.get("status", {}).get(f"{key}ServiceStatus") or {} for key in ("active", "pending"))
    return {part["rayClusterName"] for part in parts if part.get("rayClusterName")}


def _with(service: Service, phase: Phase, message: str) -> Service:
    return Service(service.name, phase, service.bundle, message, service.address)
