"""A real API server: one that is named for tests, or one of our own out of `KUBEBUILDER_ASSETS`.

`EQUIPOISE_TEST_KUBECONFIG` names a kubeconfig whose current context is for tests; nothing else of it is
used, and no other kubeconfig ever is. Without it, `KUBEBUILDER_ASSETS` names the folder with `etcd` and
`kube-apiserver`, as `setup-envtest` fills it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.cluster.kubeconfig import connect
from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.ray_runtime import free_port

Manifest = dict[str, Any]

ADMIN, NOBODY = "admin-token", "nobody-token"
START_S = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a real API server."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.apiserver)
            # The server's certificate is of its own making.
            item.add_marker(pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"))


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A kubeconfig whose current context may do everything."""
    named, assets = os.environ.get("EQUIPOISE_TEST_KUBECONFIG"), os.environ.get("KUBEBUILDER_ASSETS")
    if named:
        yield Path(named)
        return
    if not assets or not all((Path(assets) / name).is_file() for name in ("etcd", "kube-apiserver")):
        pytest.skip(
            "no API server for tests: set EQUIPOISE_TEST_KUBECONFIG to a kubeconfig, or KUBEBUILDER_ASSETS "
            "to a folder with etcd and kube-apiserver"
        )
    if shutil.which("openssl") is None:
        pytest.skip("openssl is absent, which makes the API server's signing key")
    with contextlib.ExitStack() as stack:
        yield _start(Path(assets), tmp_path_factory.mktemp("apiserver"), stack)


def _start(assets: Path, folder: Path, stack: contextlib.ExitStack) -> Path:
    """etcd and kube-apiserver on loopback, two users, RBAC on; returns the kubeconfig."""
    key, tokens = folder / "sa.key", folder / "tokens.csv"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    tokens.write_text(f'{ADMIN},admin,1,"system:masters"\n{NOBODY},nobody,2,"people"\n')
    client, peer, port = free_port(), free_port(), free_port()
    _run(
        folder,
        stack,
        str(assets / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
    )
    _run(
        folder,
        stack,
        str(assets / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{client}",
        f"--cert-dir={folder / 'certificates'}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        # Its controller is not there to make the accounts that it would ask for.
        "--disable-admission-plugins=ServiceAccount",
    )
    cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    users = {"admin": ADMIN, "nobody": NOBODY}
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "admin",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": name, "user": {"token": token}} for name, token in users.items()],
                "contexts": [{"name": name, "context": {"cluster": "test", "user": name}} for name in users],
            }
        )
    )
    _wait(f"https://127.0.0.1:{port}/readyz", folder)
    return path


def _run(folder: Path, stack: contextlib.ExitStack, *command: str) -> None:
    log = stack.enter_context((folder / f"{Path(command[0]).name}.log").open("wb"))
    process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop() -> None:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()

    stack.callback(stop)


def _wait(url: str, folder: Path) -> None:
    import ssl

    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN}"})
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=2, context=trusting):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail((folder / "kube-apiserver.log").read_text(errors="replace")[-3000:])


@pytest.fixture(scope="session")
def server(kubeconfig: Path, repository: Path) -> Any:
    """The official client of the server, KubeRay's kinds known to it."""
    from kubernetes import client, config
    from kubernetes.client.rest import ApiException

    settings = client.Configuration()
    config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
    found = client.ApiClient(settings)
    extensions = client.ApiextensionsV1Api(found)
    try:
        extensions.read_custom_resource_definition("rayjobs.ray.io")
    except ApiException as error:
        if error.status != 404:
            raise
        folder = repository.parent / "shared" / "crds"
        if not folder.is_dir():
            pytest.skip("the server does not know KubeRay, and its CRDs (../shared/crds) are absent")
        for file in sorted(folder.glob("*.yaml")):
            with file.open(encoding="utf-8") as text:
                extensions.create_custom_resource_definition(yaml.load(text, Loader=yaml.CSafeLoader))
        _wait_established(extensions)
    return found


def _wait_established(extensions: Any) -> None:
    deadline = time.monotonic() + START_S
    for name in ("rayjobs", "rayservices", "rayclusters"):
        while True:
            status = extensions.read_custom_resource_definition(f"{name}.ray.io").status
            conditions = {entry.type: entry.status for entry in (status.conditions or [])}
            if conditions.get("Established") == "True":
                break
            assert time.monotonic() < deadline, conditions
            time.sleep(0.2)


@pytest.fixture
def namespace(server: Any) -> Iterator[str]:
    """A namespace of its own that enforces the Pod Security profile `restricted`."""
    from kubernetes import client

    core = client.CoreV1Api(server)
    name = f"equipoise-test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": name, "labels": labels}})
    yield name
    core.delete_namespace(name)


@pytest.fixture
def api(kubeconfig: Path, namespace: str) -> KubernetesApi:
    """Equipoise's own client, in that namespace."""
    return connect(namespace=namespace, kubeconfig=str(kubeconfig))


@pytest.fixture
def write_status(server: Any, namespace: str) -> Callable[..., None]:
    """`write_status("rayjobs", "a", jobStatus="RUNNING")`: what KubeRay's operator would write."""
    from kubernetes import client

    custom = client.CustomObjectsApi(server)

    def write(plural: str, name: str, **status: Any) -> None:
        custom.patch_namespaced_custom_object_status(
            "ray.io", "v1", namespace, plural, name, {"status": status}
        )

    return write
