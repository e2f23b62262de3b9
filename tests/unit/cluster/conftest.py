"""Validation against KubeRay's CRDs and Kubernetes' own schemas, as an API server would do it."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from equipoise.config import RunConfig
from equipoise.config.cluster import ClusterConfig

Manifest = dict[str, Any]


def _beside(name: str) -> ModuleType:
    """A module beside this file; tests are imported without a package around them."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


api_server = _beside("api_server")


@pytest.fixture(scope="session")
def crds(repository: Path) -> dict[str, Manifest]:
    """The v1 schema of each KubeRay kind."""
    folder = repository.parent / "shared" / "crds"
    if not folder.is_dir():
        pytest.skip("KubeRay's CRDs beside the checkout (../shared/crds) are absent")
    found = {}
    for file in folder.glob("*.yaml"):
        # Megabytes, over which the loader in Python takes half a minute.
        definition = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        [version] = [entry for entry in definition["spec"]["versions"] if entry["name"] == "v1"]
        schema = version["schema"]["openAPIV3Schema"]
        found[definition["spec"]["names"]["kind"]] = closed(schema)
    return found


def closed(schema: Manifest) -> Manifest:
    """A structural schema as JSON schema: int-or-string as both, unknown keys refused."""
    schema = copy.deepcopy(schema)
    if schema.pop("x-kubernetes-int-or-string", None):
        return {"type": ["integer", "string"]}
    keeps = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if "properties" in schema:
        schema["properties"] = {name: closed(inner) for name, inner in schema["properties"].items()}
        if schema["properties"].get("metadata") == {"type": "object"}:
            # The root's: the API server checks it by itself.
            schema["properties"]["metadata"] = {"type": "object"}
        elif not keeps:
            schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = closed(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = closed(schema["items"])
    return schema


@pytest.fixture(scope="session")
def check_object(crds: dict[str, Manifest]) -> Callable[[Manifest], None]:
    """`check_object(manifest)`: raises where a real API server would refuse its structure."""
    import jsonschema
    import kubernetes_validate

    def check(manifest: Manifest) -> None:
        if manifest["apiVersion"].startswith("ray.io/"):
            jsonschema.Draft202012Validator(crds[manifest["kind"]]).validate(manifest)
            for template in pod_templates(manifest):
                pod = {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": "pod"},
                    "spec": template["spec"],
                }
                kubernetes_validate.validate(pod, "1.37", strict=True)
        else:
            kubernetes_validate.validate(manifest, "1.37", strict=True)

    return check


def pod_templates(manifest: Manifest) -> list[Manifest]:
    """Every pod template of a KubeRay object."""
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    found = [cluster["headGroupSpec"]["template"]]
    found += [group["template"] for group in cluster["workerGroupSpecs"]]
    return [*found, spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else found


@pytest.fixture
def cluster_config() -> Callable[..., ClusterConfig]:
    """`cluster_config(queue="gpu")`: a cluster section, one group of workers and an image by default."""

    def build(**values: Any) -> ClusterConfig:
        given = {"image": "registry.example/equipoise:0.1", "worker_groups": [{}], **values}
        return ClusterConfig.model_validate(given)

    return build


@pytest.fixture
def sample_run() -> Callable[..., RunConfig]:
    """`sample_run(cluster={...})`: a run config whose data every machine has."""

    def build(**values: Any) -> RunConfig:
        base = {
            "name": "topics",
            "data": {"train": "sample://reuters-r8/train", "test": "sample://reuters-r8/test"},
            "model": {"teacher": "sample://all-minilm-l6-v2"},
            "cluster": {"image": "registry.example/equipoise:0.1", "storage": {"claim": "runs"}},
        }
        return RunConfig.model_validate({**base, **values})

    return build


@pytest.fixture
def server() -> Iterator[Any]:
    """A small API server on loopback."""
    found = api_server.ApiServer()
    yield found
    found.stop()


@pytest.fixture
def kubeconfig(server: Any, tmp_path: Path) -> Path:
    """A kubeconfig for that server: context `test`, in namespace research, and `stranger`, unknown."""
    path = tmp_path / "kubeconfig"
    users = {"admin": api_server.TOKEN, "nobody": "expired"}
    values = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "local", "cluster": {"server": server.url}}],
        "users": [{"name": name, "user": {"token": token}} for name, token in users.items()],
        "contexts": [
            {"name": "test", "context": {"cluster": "local", "user": "admin", "namespace": "research"}},
            {"name": "stranger", "context": {"cluster": "local", "user": "nobody"}},
        ],
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture
def api(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of that server, impatient."""
    from equipoise.cluster import kubernetes_transport
    from equipoise.cluster.kubeconfig import connect

    monkeypatch.setattr(kubernetes_transport, "_BACKOFF_S", 0.01)
    return connect(kubeconfig=str(kubeconfig))


@pytest.fixture
def jobs(api: Any) -> Any:
    """Runs on that server; a file whose jobs need more has a fixture of the same name."""
    from equipoise.cluster.kubernetes_jobs import KubernetesJobs

    return KubernetesJobs(api)
