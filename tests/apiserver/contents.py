"""What the tests put into an API server, and take out of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]

ESTABLISHED_S = 60
_NODE = "equipoise-test"


def client_of(kubeconfig: Path) -> Any:
    """The official client, as the current context of a kubeconfig."""
    from kubernetes import client, config

    settings = client.Configuration()
    config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
    return client.ApiClient(settings)


def install(server: Any, definitions: list[Manifest]) -> list[str]:
    """Make CRDs known to a server, in place of others of their names, and wait until they are.

    Returns:
        Names of those that were not there before.
    """
    from kubernetes import client

    extensions = client.ApiextensionsV1Api(server)
    held = {found.metadata.name: found for found in extensions.list_custom_resource_definition().items}
    for definition in definitions:
        name = definition["metadata"]["name"]
        if name in held:
            version = {"resourceVersion": held[name].metadata.resource_version}
            changed = {**definition, "metadata": {**definition["metadata"], **version}}
            extensions.replace_custom_resource_definition(name, changed)
        else:
            extensions.create_custom_resource_definition(definition)
    deadline = time.monotonic() + ESTABLISHED_S
    for definition in definitions:
        while True:
            status = extensions.read_custom_resource_definition(definition["metadata"]["name"]).status
            conditions = {entry.type: entry.status for entry in (status.conditions or [])}
            if conditions.get("Established") == "True":
                break
            assert time.monotonic() < deadline, conditions
            time.sleep(0.2)
    names = [definition["metadata"]["name"] for definition in definitions]
    return [name for name in names if name not in held]


def add_node(server: Any) -> bool:
    """A node large enough for what the tests ask for, where there is none; whether there was none."""
    from kubernetes import client

    core = client.CoreV1Api(server)
    if core.list_node(limit=1).items:
        return False
    room = {"cpu": "64", "memory": "256Gi", "nvidia.com/gpu": "8", "pods": "110"}
    core.create_node({"metadata": {"name": _NODE}, "status": {"allocatable": room}})
    return True


def take_out(server: Any, definitions: list[str], *, node: bool) -> None:
    """Remove what was put in: CRDs, with every object of theirs, and the node."""
    from kubernetes import client

    if node:
        client.CoreV1Api(server).delete_node(_NODE)
    for name in definitions:
        client.ApiextensionsV1Api(server).delete_custom_resource_definition(name)


def make_namespace(server: Any) -> str:
    """A namespace of its own that enforces the Pod Security profile `restricted`."""
    from kubernetes import client

    name = f"equipoise-test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    client.CoreV1Api(server).create_namespace({"metadata": {"name": name, "labels": labels}})
    return name


def status_writer(server: Any, namespace: str) -> Callable[..., None]:
    """`write("rayjobs", "a", jobStatus="RUNNING")`: what KubeRay's operator would write."""
    from kubernetes import client

    custom = client.CustomObjectsApi(server)

    def write(plural: str, name: str, **status: Any) -> None:
        custom.patch_namespaced_custom_object_status(
            "ray.io", "v1", namespace, plural, name, {"status": status}
        )

    return write
