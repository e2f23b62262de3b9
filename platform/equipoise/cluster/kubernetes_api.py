"""Objects of one namespace, as a command uses them: server-side apply, look, list, delete."""

from __future__ import annotations

from typing import Any

from equipoise.cluster.kubernetes_transport import APPLY, Transport
from equipoise.cluster.names import MANAGER
from equipoise.errors import InputError

Manifest = dict[str, Any]

KINDS = {
    "ConfigMap": ("v1", "configmaps"),
    "Event": ("v1", "events"),
    "Node": ("v1", "nodes"),
    "Pod": ("v1", "pods"),
    "PriorityClass": ("scheduling.k8s.io/v1", "priorityclasses"),
    "RayCluster": ("ray.io/v1", "rayclusters"),
    "RayJob": ("ray.io/v1", "rayjobs"),
    "RayService": ("ray.io/v1", "rayservices"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "Workload": ("kueue.x-k8s.io", "workloads"),
}
"""API version and plural of each kind that Equipoise touches; a bare group is in its server's version."""

_KARPENTER = ("karpenter.sh/v1", "karpenter.sh/v1beta1")
_CLUSTER_WIDE = {"Node", "PriorityClass"}
_UNVERSIONED = {"kueue.x-k8s.io"}
_PAGE = 500


class KubernetesApi:
    """One API server and one namespace.

    Args:
        transport: to the server.
        namespace: of every object.
        chosen: options that name the server, where the default does not; they follow `options`.
    """

    def __init__(self, transport: Transport, namespace: str, chosen: str = "") -> None:
        self.transport, self.namespace, self._chosen = transport, namespace, chosen
        self._preferred: dict[str, str] = {}

    @property
    def where(self) -> str:
        """What faults name: the context, or the server."""
        return self.transport.where

    @property
    def options(self) -> str:
        """Options that make another command talk to the same place."""
        return f"--namespace {self.namespace}{self._chosen}"

    def in_namespace(self, namespace: str) -> KubernetesApi:
        """The same server, with another namespace."""
        return KubernetesApi(self.transport, namespace, self._chosen)

    def apply(
        self,
        manifest: Manifest,
        *,
        dry_run: bool = False,
        force: bool = False,
        resource_version: str | None = None,
    ) -> Manifest:
        """Server-side apply: creates the object, or changes the fields that Equipoise manages.

        Args:
            manifest: apiVersion, kind, metadata.name and what is to be so.
            dry_run: let the server check everything and keep nothing.
            force: take fields that another manager has set.
            resource_version: the object must not have changed since.

        Raises:
            InputError: the server refuses it; the message says why and what would help.
            ServiceError: the server does not answer, or has no room.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        body = manifest
        if resource_version is not None:
            body = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": resource_version}}
        query = {"fieldManager": MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        found: Manifest = self._json("PATCH", kind, name, query=query, body=body, content_type=APPLY)
        return found

    def get(self, kind: str, name: str) -> Manifest | None:
        """An object, or None where there is none."""
        found: Manifest | None = self._json("GET", kind, name, missing=True)
        return found

    def list_objects(self, kind: str, *, labels: str = "", fields: str = "") -> list[Manifest]:
        """Every object of a kind, page by page; none where the server does not know the kind."""
        found: list[Manifest] = []
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        query = {key: value for key, value in query.items() if value}
        while True:
            page = self._json("GET", kind, query=query, missing=True)
            if page is None:
                return found
            found += page.get("items", [])
            following = page.get("metadata", {}).get("continue")
            if not following:
                return found
            query["continue"] = following

    def delete(self, kind: str, name: str) -> bool:
        """Delete an object and what it owns; False where there was none."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        return self._json("DELETE", kind, name, body=body, missing=True) is not None

    def resources(self, group_version: str) -> set[str]:
        """Kinds that the server knows in an API group and version; none where it does not know the group."""
        found = self.transport.json(
            "GET", f"/apis/{group_version}", group_version, "", self.namespace, missing=True
        )
        return {entry["kind"] for entry in (found or {}).get("resources", [])}

    def adds_nodes(self) -> bool:
        """Whether something adds nodes for pods that wait: Karpenter, or the cluster autoscaler."""
        if any(self.resources(version) for version in _KARPENTER):
            return True
        try:
            system = self.in_namespace("kube-system")
            return system.get("ConfigMap", "cluster-autoscaler-status") is not None
        except InputError:
            return True  # It may not be looked at: the benefit of the doubt.

    def path(self, kind: str, name: str = "") -> str:
        """The URL path of a kind, or of one object, in this namespace."""
        version, plural = KINDS[kind]
        version = self._served(version) if version in _UNVERSIONED else version
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        scope = "" if kind in _CLUSTER_WIDE else f"/namespaces/{self.namespace}"
        return f"{root}{scope}/{plural}" + (f"/{name}" if name else "")

    def _served(self, group: str) -> str:
        """Group and version in which the server prefers a group; the bare group where it has none of it."""
        if group not in self._preferred:
            found = self.transport.json("GET", f"/apis/{group}", group, "", self.namespace, missing=True)
            if found is None:
                return group
            self._preferred[group] = str(found["preferredVersion"]["groupVersion"])
        return self._preferred[group]

    def _json(self, method: str, kind: str, name: str = "", **request: Any) -> Any:
        return self.transport.json(method, self.path(kind, name), kind, name, self.namespace, **request)
