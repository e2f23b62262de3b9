"""The API server, as a command uses it: timeouts, retries, server-side apply, and faults in one line.

Built on the official client's configuration and transport. Every request here is safe to repeat.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from equipoise.cluster.api_faults import explain_api_error, explain_transport_error
from equipoise.cluster.names import MANAGER
from equipoise.errors import ConfigError, EquipoiseError, InputError, ServiceError

Manifest = dict[str, Any]

KINDS = {
    "ConfigMap": ("v1", "configmaps"),
    "Event": ("v1", "events"),
    "Node": ("v1", "nodes"),
    "Pod": ("v1", "pods"),
    "RayCluster": ("ray.io/v1", "rayclusters"),
    "RayJob": ("ray.io/v1", "rayjobs"),
    "RayService": ("ray.io/v1", "rayservices"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "Workload": ("kueue.x-k8s.io/v1beta1", "workloads"),
}
"""API version and plural of each kind that Equipoise touches."""

_KARPENTER = ("karpenter.sh/v1", "karpenter.sh/v1beta1")
_CLUSTER_WIDE = {"Node"}
_CONNECT_S, _READ_S = 10.0, 30.0
# A log may be silent for long; a connection that broke unnoticed must not be.
_LOG_READ_S = 300.0
_TRIES = 4
_BACKOFF_S = 0.5
_PAGE = 500
_APPLY = "application/apply-patch+yaml"
_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubernetesApi:
    """One API server and one namespace."""

    def __init__(self, client: Any, namespace: str, where: str) -> None:
        self._client = client
        self.namespace = namespace
        self.where = where
        """What faults name: the context, or the server."""

    def in_namespace(self, namespace: str) -> KubernetesApi:
        """The same server, with another namespace."""
        return KubernetesApi(self._client, namespace, self.where)

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
        found: Manifest = self._json("PATCH", self.path(kind, name), kind, name, query, body, _APPLY)
        return found

    def get(self, kind: str, name: str) -> Manifest | None:
        """An object, or None where there is none."""
        found: Manifest | None = self._json("GET", self.path(kind, name), kind, name, missing=True)
        return found

    def list_objects(self, kind: str, *, labels: str = "", fields: str = "") -> list[Manifest]:
        """Every object of a kind, page by page; none where the server does not know the kind."""
        found: list[Manifest] = []
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        query = {key: value for key, value in query.items() if value}
        while True:
            page = self._json("GET", self.path(kind), kind, "", query, missing=True)
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
        return self._json("DELETE", self.path(kind, name), kind, name, body=body, missing=True) is not None

    def resources(self, group_version: str) -> set[str]:
        """Kinds that the server knows in an API group and version; none where it does not know the group."""
        found = self._json("GET", f"/apis/{group_version}", group_version, "", missing=True)
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

    def pod_log(self, pod: str, since: str = "", *, follow: bool = True) -> Iterator[str]:
        """Lines of a pod's log, each behind its RFC 3339 timestamp.

        Args:
            pod: its name.
            follow: go on as lines come, until the pod ends.
            since: timestamp of the last line already seen; earlier lines are left out by the second.
        """
        query = {"follow": str(follow).lower(), "timestamps": "true"}
        if since:
            query["sinceTime"] = since
        response = self._send("GET", f"{self.path('Pod', pod)}/log", query, None, "", _LOG_READ_S)
        self._check(response, "Pod", pod)
        try:
            pending = b""
            for block in response.stream(8192):
                *lines, pending = (pending + block).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
            if pending:
                yield pending.decode("utf-8", "replace")
        except _transport_errors() as error:
            raise explain_transport_error(error, self.where) from error
        finally:
            response.close()

    def run_in_pod(self, pod: str, container: str, command: list[str], timeout_s: float) -> str:
        """What a command prints in a running container, as `kubectl exec` would run it.

        Raises:
            InputError: it may not be run, or the pod is gone.
            ServiceError: it failed, or took longer than `timeout_s`.
        """
        import websocket
        from kubernetes import client
        from kubernetes.stream import stream

        # The client's own timeouts begin once it is connected.
        websocket.setdefaulttimeout(_CONNECT_S)
        faults: tuple[type[Exception], ...] = (*_transport_errors(), websocket.WebSocketException)
        try:
            line = stream(
                client.CoreV1Api(self._client).connect_get_namespaced_pod_exec,
                pod,
                self.namespace,
                container=container,
                command=command,
                stdin=False,
                stdout=True,
                stderr=True,
                tty=False,
                _preload_content=False,
            )
            try:
                line.run_forever(timeout=timeout_s)
                if line.is_open():
                    raise ServiceError(f"took more than {timeout_s:.0f} s", where=f"pod {pod}")
                output, errors = line.read_channel(1), line.read_channel(2)
                status = line.returncode
            finally:
                # Its own `close` leaves the socket open where the server closed first.
                line.sock.shutdown()
        except faults as error:
            refused = re.search(r"Handshake status (\d+)", str(error))
            if refused is None:
                raise explain_transport_error(error, self.where) from error
            raise self._fault(int(refused.group(1)), str(error).encode(), "Pod", pod) from error
        if status != 0:
            said = (errors.strip().splitlines() or ["no reason was given"])[-1]
            raise ServiceError(f"{command[0]} ended with {status}: {said}", where=f"pod {pod}")
        return str(output)

    def path(self, kind: str, name: str = "") -> str:
        """The URL path of a kind, or of one object, in this namespace."""
        version, plural = KINDS[kind]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        scope = "" if kind in _CLUSTER_WIDE else f"/namespaces/{self.namespace}"
        return f"{root}{scope}/{plural}" + (f"/{name}" if name else "")

    def _json(
        self,
        method: str,
        path: str,
        kind: str,
        name: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        *,
        missing: bool = False,
    ) -> Any:
        """The answer's JSON; tried again on faults that pass; None on a 404 where `missing` is allowed."""
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                response = self._send(method, path, query or {}, body, content_type)
                content = response.data
            except _transport_errors() as error:
                found = explain_transport_error(error, self.where)
                if last or not isinstance(found, ServiceError):
                    raise found from error
                time.sleep(_BACKOFF_S * 2**attempt)
                continue
            if missing and response.status == 404 and _is_absence(content):
                return None
            if 200 <= response.status < 300:
                return json.loads(content)
            fault = self._fault(response.status, content, kind, name)
            if last or not isinstance(fault, ServiceError) or response.status in (403, 409):
                raise fault
            time.sleep(_retry_after(response) or _BACKOFF_S * 2**attempt)
        raise AssertionError("unreachable")

    def _check(self, response: Any, kind: str, name: str) -> None:
        if not 200 <= response.status < 300:
            raise self._fault(response.status, response.read(), kind, name)

    def _fault(self, status: int, content: bytes, kind: str, name: str) -> EquipoiseError:
        return explain_api_error(
            status, content, kind=kind, name=name, namespace=self.namespace, where=self.where
        )

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        content_type: str,
        read_s: float = _READ_S,
    ) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            # JSON is YAML too, which is what a server-side apply wants.
            body=json.dumps(body) if content_type == _APPLY else body,
            auth_settings=["BearerToken"],
        )
        return self._client.call_api(*request, _request_timeout=(_CONNECT_S, read_s)).response


def connect(
    namespace: str | None = None, context: str | None = None, kubeconfig: str | None = None
) -> KubernetesApi:
    """The API server that kubectl would talk to.

    The kubeconfig is the given one, else those of $KUBECONFIG, else `~/.kube/config`, else the pod's
    own service account. The namespace is the given one, else the context's, else `default`.

    Raises:
        ConfigError: there is no kubeconfig, or the context is not in it, or its credentials cannot be read.
    """
    import yaml
    from kubernetes import client, config
    from kubernetes.config import ConfigException

    settings = client.Configuration()
    # One place decides what is tried again: `_json`.
    settings.retries = False
    location = kubeconfig or os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    present = any(Path(part).is_file() for part in location.split(os.pathsep) if part)
    if not present and not kubeconfig and not context and _IN_CLUSTER in os.environ:
        try:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            raise ConfigError(
                f"the pod's service account cannot be used: {error}", where="in cluster"
            ) from error
        own = _OWN_NAMESPACE.read_text(encoding="utf-8").strip() if _OWN_NAMESPACE.is_file() else "default"
        return KubernetesApi(client.ApiClient(settings), namespace or own, f"cluster {settings.host}")
    if not present:
        raise ConfigError(
            "no kubeconfig",
            where=location,
            remedy="point --kubeconfig or KUBECONFIG at one, as for kubectl",
        )
    try:
        contexts, active = config.list_kube_config_contexts(config_file=location)  # type: ignore[no-untyped-call]
    except (ConfigException, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"the kubeconfig cannot be used: {error}", where=location) from error
    chosen = next((entry for entry in contexts if entry["name"] == context), None) if context else active
    if chosen is None:
        known = ", ".join(sorted(entry["name"] for entry in contexts)) or "none"
        raise ConfigError(
            "no such context",
            where=location,
            value=context,
            remedy=f"choose one of: {known}",
        )
    try:
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=location, context=chosen["name"], client_configuration=settings, persist_config=False
        )
    except (ConfigException, OSError, ValueError) as error:
        raise ConfigError(
            f"its credentials cannot be used: {error}",
            where=f"context {chosen['name']}",
            remedy="log in again",
        ) from error
    space = namespace or chosen["context"].get("namespace") or "default"
    return KubernetesApi(client.ApiClient(settings), space, f"context {chosen['name']}")


def _is_absence(content: bytes) -> bool:
    """Whether a 404 speaks of an object or a kind, rather than of the namespace around it."""
    return b'namespaces \\"' not in content


def _retry_after(response: Any) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), 10.0) if value.isdigit() else 0.0


def _transport_errors() -> tuple[type[Exception], ...]:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    # Below `call_api` no status raises; what the client raises as ApiException is a TLS fault.
    return (HTTPError, OSError, ApiException)
