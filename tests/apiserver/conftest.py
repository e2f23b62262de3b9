"""A real API server: one that is named for tests, or one of our own out of `KUBEBUILDER_ASSETS`.

`EQUIPOISE_TEST_KUBECONFIG` names a kubeconfig whose current context is for tests; nothing else of it is
used, and no other kubeconfig ever is. Without it, `KUBEBUILDER_ASSETS` names the folder with `etcd` and
`kube-apiserver`, as `setup-envtest` fills it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from equipoise.cluster.kubeconfig import connect
from equipoise.cluster.kubernetes_api import KubernetesApi

Manifest = dict[str, Any]

CRDS = ("rayclusters", "rayjobs", "rayservices")


def _beside(name: str) -> ModuleType:
    """A module beside this file; tests are imported without a package around them."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


own, seen = _beside("own_server"), _beside("contents")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a real API server."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.apiserver)
            # The server's certificate is of its own making.
            item.add_marker(pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"))


def _assets() -> Path:
    found = os.environ.get("KUBEBUILDER_ASSETS")
    if not found or not all((Path(found) / name).is_file() for name in ("etcd", "kube-apiserver")):
        pytest.skip(
            "no API server for tests: set EQUIPOISE_TEST_KUBECONFIG to a kubeconfig, or KUBEBUILDER_ASSETS "
            "to a folder with etcd and kube-apiserver"
        )
    if shutil.which("openssl") is None:
        pytest.skip("openssl is absent, which makes the API server's signing key")
    return Path(found)


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A kubeconfig whose current context may do everything."""
    named = os.environ.get("EQUIPOISE_TEST_KUBECONFIG")
    if named:
        yield Path(named)
        return
    server = own.OwnServer(_assets(), tmp_path_factory.mktemp("apiserver"))
    try:
        yield server.kubeconfig
    finally:
        server.close()


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that a test may stop, start and give other CRDs; never one that is named for tests."""
    server = own.OwnServer(_assets(), tmp_path_factory.mktemp("own"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of our own that knows nothing of KubeRay."""
    server = own.OwnServer(_assets(), tmp_path_factory.mktemp("bare"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def contents() -> ModuleType:
    """What puts things into a server: `contents.make_namespace(client)` and others."""
    return seen


@pytest.fixture(scope="session")
def definitions(repository: Path) -> list[Manifest]:
    """KubeRay's CRDs."""
    folder = repository.parent / "shared" / "crds"
    if not folder.is_dir():
        pytest.skip("KubeRay's CRDs beside the checkout (../shared/crds) are absent")
    files = [folder / f"ray.io_{name}.yaml" for name in CRDS]
    return [yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader) for file in files]


@pytest.fixture(scope="session")
def server(kubeconfig: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The official client of the server, KubeRay's kinds known to it, with a node that runs nothing.

    What was not there before is not there afterwards.
    """
    from kubernetes import client
    from kubernetes.client.rest import ApiException

    found, created = seen.client_of(kubeconfig), []
    try:
        client.ApiextensionsV1Api(found).read_custom_resource_definition("rayjobs.ray.io")
    except ApiException as error:
        if error.status != 404:
            raise
        created = seen.install(found, request.getfixturevalue("definitions"))
    node = seen.add_node(found)
    yield found
    seen.take_out(found, created, node=node)


@pytest.fixture(scope="module")
def foreign_kinds(server: Any) -> Iterator[None]:
    """Kinds of Kueue and of the Prometheus operator, known to the server where they were not."""
    from kubernetes import client

    folder = os.environ.get("EQUIPOISE_TEST_CRDS")
    if not folder:
        pytest.skip("set EQUIPOISE_TEST_CRDS to a folder with the CRDs of Kueue and the Prometheus operator")
    texts = [file.read_text(encoding="utf-8") for file in sorted(Path(folder).glob("*.yaml"))]
    definitions = [yaml.load(text, Loader=yaml.CSafeLoader) for text in texts]
    held = client.ApiextensionsV1Api(server).list_custom_resource_definition().items
    names = {each.metadata.name for each in held}
    created = seen.install(server, [each for each in definitions if each["metadata"]["name"] not in names])
    yield
    seen.take_out(server, created, node=False)


@pytest.fixture
def namespace(server: Any) -> Iterator[str]:
    """A namespace of its own that enforces the Pod Security profile `restricted`."""
    from kubernetes import client

    name = seen.make_namespace(server)
    yield name
    client.CoreV1Api(server).delete_namespace(name)


@pytest.fixture
def api(kubeconfig: Path, namespace: str) -> KubernetesApi:
    """Equipoise's own client, in that namespace."""
    return connect(namespace=namespace, kubeconfig=str(kubeconfig))


@pytest.fixture
def write_status(server: Any, namespace: str) -> Callable[..., None]:
    """`write_status("rayjobs", "a", jobStatus="RUNNING")`: what KubeRay's operator would write."""
    written: Callable[..., None] = seen.status_writer(server, namespace)
    return written


@pytest.fixture
def bind_submitter(
    kubernetes_tools: dict[str, str], repository: Path, namespace: str, server: Any
) -> Callable[[Manifest], None]:
    """`bind_submitter(subject)`: bind the chart's role for submitters to a subject in the namespace."""
    from kubernetes import client

    def bind(subject: Manifest) -> None:
        rendered = subprocess.run(
            [
                *(kubernetes_tools["helm"], "template", "eq", str(repository / "charts" / "equipoise")),
                *("-n", namespace, "--api-versions", "ray.io/v1/RayService"),
                *("--set-json", f"submitters={json.dumps([subject])}"),
                *("--show-only", "templates/rbac.yaml"),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        rights = client.RbacAuthorizationV1Api(server)
        for manifest in yaml.safe_load_all(rendered.stdout):
            if manifest["kind"] == "Role":
                rights.create_namespaced_role(namespace, manifest)
            if manifest["kind"] == "RoleBinding":
                rights.create_namespaced_role_binding(namespace, manifest)

    return bind


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def equipoise(tmp_path: Path) -> Command:
    """`equipoise(kubeconfig, "submit", …)`: the command as its user calls it."""

    def call(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
        environment |= {
            "KUBECONFIG": str(kubeconfig),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "HOME": str(tmp_path),
            # The server's certificate is of its own making.
            "PYTHONWARNINGS": "ignore:Unverified HTTPS request",
        }
        command = [sys.executable, "-m", "equipoise.cli.main", *arguments]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
        )

    return call


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A run config, whose run fits the node of the tests."""
    values = {
        "name": "topics",
        "data": {"train": "sample://reuters-r8/train", "test": "sample://reuters-r8/test"},
        "model": {"teacher": "sample://all-minilm-l6-v2"},
        "cluster": {
            "image": "registry.example/equipoise:0.1",
            "storage": {"claim": "runs"},
            "worker_groups": [{}],
        },
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
