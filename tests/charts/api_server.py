"""A small Kubernetes API server over HTTP, as much as helm asks when it renders: discovery and look-ups.

It keeps nothing and checks nothing; tests/charts/test_objects.py holds objects against schemas.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Manifest = dict[str, Any]

CORE = ("ConfigMap", "PersistentVolumeClaim", "Pod", "Secret", "Service", "ServiceAccount")
KUBERAY = ("RayCluster", "RayJob", "RayService")
GROUPS = {
    "apps/v1": ("Deployment",),
    "networking.k8s.io/v1": ("Ingress", "NetworkPolicy"),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
}


def plural(kind: str) -> str:
    """The resource of a kind, as in paths."""
    name = kind.lower()
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith("ss") else f"{name}s"


class ApiServer:
    """Objects by resource, namespace and name.

    Args:
        has_kuberay: whether it knows KubeRay's kinds.
    """

    def __init__(self, *, has_kuberay: bool = True) -> None:
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self.groups = {**GROUPS, **({"ray.io/v1": KUBERAY} if has_kuberay else {})}
        outer = self

        class Handler(_Handler):
            state = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def put(self, manifest: Manifest, namespace: str = "models") -> None:
        """Hold an object, as if it had been created."""
        name = manifest["metadata"]["name"]
        self.objects[(plural(manifest["kind"]), namespace, name)] = manifest

    def stop(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: ApiServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        status, answer = self._route([part for part in path.split("/") if part])
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _route(self, parts: list[str]) -> tuple[int, Manifest]:
        match parts:
            case ["version"]:
                return 200, {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
            case ["api"]:
                return 200, {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return 200, {
                    "kind": "APIGroupList",
                    "apiVersion": "v1",
                    "groups": [_group(each) for each in self.state.groups],
                }
            case ["api", "v1"]:
                return 200, _resources("v1", CORE)
            case ["apis", group, version] if f"{group}/{version}" in self.state.groups:
                return 200, _resources(f"{group}/{version}", self.state.groups[f"{group}/{version}"])
            case ["api", "v1", "namespaces", name]:
                return 200, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            case ["api", "v1", "namespaces", _, resource]:
                # Releases are kept in secrets; there is none yet.
                return 200, {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []}
            case ["api", "v1", "namespaces", namespace, resource, name]:
                found = self.state.objects.get((resource, namespace, name))
                return (200, found) if found else _missing(f'{resource} "{name}"')
        return _missing("/".join(parts))


def _group(version: str) -> Manifest:
    name, _, number = version.partition("/")
    entry = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [entry], "preferredVersion": entry}


def _resources(version: str, kinds: tuple[str, ...]) -> Manifest:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    entries = [
        {"name": plural(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
        for kind in kinds
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": entries}


def _missing(what: str) -> tuple[int, Manifest]:
    return 404, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": 404,
        "reason": "NotFound",
        "message": f"{what} not found",
    }
