"""The real helm over the chart, and the schemas that an API server would hold its output against."""

from __future__ import annotations

import copy
import functools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]

CHART = Path(__file__).resolve().parents[2] / "charts" / "equipoise"
KUBERNETES = "1.35"
KUBERAY_KINDS = ("ray.io/v1/RayService", "ray.io/v1/RayCluster", "ray.io/v1/RayJob")
PROMETHEUS_KINDS = tuple(
    f"monitoring.coreos.com/v1/{kind}" for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule")
)


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it; the CRDs are megabytes, and the pure Python loader takes a minute."""


@pytest.fixture(scope="session")
def helm(
    kubernetes_tools: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`helm("lint", CHART)`: the real helm, which knows of no cluster."""
    home = tmp_path_factory.mktemp("helm")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))},
        "HELM_CACHE_HOME": str(home / "cache"),
        "HELM_CONFIG_HOME": str(home / "config"),
        "HELM_DATA_HOME": str(home / "data"),
        "KUBECONFIG": str(home / "none"),
    }

    def call(*arguments: str | Path, check: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [kubernetes_tools["helm"], *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=check,
        )

    return call


@pytest.fixture(scope="session")
def kustomize(kubernetes_tools: dict[str, str]) -> Callable[..., list[Manifest]]:
    """`kustomize(folder)`: the objects that the real kubectl builds from a kustomization.

    `restricted=True` is what `kubectl apply -k` does: no file is loaded from above a kustomization's folder.
    """

    @functools.cache
    def build(folder: Path, restrictor: str) -> str:
        command = [kubernetes_tools["kubectl"], "kustomize", "--load-restrictor", restrictor, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(folder: Path, *, restricted: bool = False) -> list[Manifest]:
        text = build(folder, "LoadRestrictionsRootOnly" if restricted else "LoadRestrictionsNone")
        return [found for found in yaml.load_all(text, Loader=_Loader) if found]

    return call


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """`render("s3", set_values=["image.tag=x"])`: the objects of a release `eq` in namespace `models`."""

    @functools.cache
    def template(name: str, set_values: tuple[str, ...], kinds: tuple[str, ...]) -> str:
        arguments = ["template", "eq", CHART, "-n", "models", "-f", CHART / "ci" / f"{name}-values.yaml"]
        arguments += [part for value in set_values for part in ("--set-json", value)]
        done = helm(*arguments, *(part for kind in kinds for part in ("--api-versions", kind)))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(
        name: str = "default",
        set_values: Iterator[str] | list[str] | tuple[str, ...] = (),
        kinds: tuple[str, ...] = KUBERAY_KINDS + PROMETHEUS_KINDS,
    ) -> list[Manifest]:
        text = template(name, tuple(set_values), kinds)
        return [found for found in yaml.load_all(text, Loader=_Loader) if found]

    return call


@pytest.fixture(scope="session")
def find() -> Callable[[list[Manifest], str, str], Manifest]:
    """`find(objects, "Deployment", "exporter")`: the one object of a kind whose name ends so."""

    def search(objects: list[Manifest], kind: str, ending: str = "") -> Manifest:
        [found] = [
            each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(ending)
        ]
        return found

    return search


@pytest.fixture(scope="session")
def crds(repository: Path) -> dict[tuple[str, str], Manifest]:
    """Structural schemas by (apiVersion, kind), closed as an API server with strict validation closes them.

    KubeRay's lie beside the checkout; those of the Prometheus operator and of Kueue are taken from the
    folder that EQUIPOISE_TEST_CRDS names, if it does.
    """
    folder = repository.parent / "shared" / "crds"
    if not folder.is_dir():
        pytest.skip("KubeRay's CRDs beside the checkout (../shared/crds) are absent")
    more = os.environ.get("EQUIPOISE_TEST_CRDS")
    found = {}
    for file in [*folder.glob("*.yaml"), *(Path(more).glob("*.yaml") if more else ())]:
        spec = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)["spec"]  # noqa: S506
        for version in spec["versions"]:
            key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
            found[key] = _closed(version["schema"]["openAPIV3Schema"])
    return found


def _closed(schema: Manifest) -> Manifest:
    closed = copy.copy(schema)
    if closed.pop("x-kubernetes-int-or-string", None):
        return {"type": ["integer", "string"]}
    if closed.get("nullable"):
        closed["type"] = [closed["type"], "null"]
    if "properties" in closed:
        closed["properties"] = {name: _closed(inner) for name, inner in closed["properties"].items()}
        if not closed.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    if isinstance(closed.get("additionalProperties"), dict):
        closed["additionalProperties"] = _closed(closed["additionalProperties"])
    if "items" in closed:
        closed["items"] = _closed(closed["items"])
    return closed


@pytest.fixture(scope="session")
def validate(request: pytest.FixtureRequest) -> Callable[[Manifest], None]:
    """`validate(manifest)`: raises where an API server would refuse the object's structure."""
    import jsonschema
    import kubernetes_validate

    @functools.cache
    def custom(version: str, kind: str) -> Any:
        return jsonschema.Draft202012Validator(request.getfixturevalue("crds")[version, kind])

    def check(manifest: Manifest) -> None:
        version, kind = manifest["apiVersion"], manifest["kind"]
        if version.startswith("ray.io/"):
            custom(version, kind).validate(manifest)
        elif version.startswith(("monitoring.coreos.com/", "kueue.x-k8s.io/")):
            # Nobody's schemas but their operators' own know these kinds.
            if os.environ.get("EQUIPOISE_TEST_CRDS"):
                custom(version, kind).validate(manifest)
        else:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        for template in pod_templates(manifest):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)

    return check


@pytest.fixture(scope="session")
def templates() -> Callable[[Manifest], list[Manifest]]:
    """`templates(manifest)`: every pod template that an object carries."""
    return pod_templates


def pod_templates(manifest: Manifest) -> list[Manifest]:
    """Every pod template of an object, whatever its kind."""
    if manifest["kind"] == "Pod":
        return [manifest]
    found = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("template", "submitterPodTemplate") and "containers" in inner.get("spec", {}):
                    found.append(inner)
                else:
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(manifest.get("spec", {}))
    return found


@pytest.fixture(scope="session")
def serve_config(find: Callable[..., Manifest]) -> Callable[[list[Manifest]], Manifest]:
    """`serve_config(objects)`: the Serve config of the RayService."""

    def read(objects: list[Manifest]) -> Manifest:
        text = find(objects, "RayService")["spec"]["serveConfigV2"]
        config: Manifest = yaml.safe_load(text)
        json.dumps(config)
        return config

    return read


@pytest.fixture(scope="session")
def breaches() -> Callable[[Manifest], list[str]]:
    """`breaches(pod_spec)`: what of it Pod Security `restricted` forbids."""
    return find_breaches


# Pod Security Standards, profile `restricted`: https://kubernetes.io/docs/concepts/security/pod-security-standards/

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def find_breaches(spec: Manifest) -> list[str]:
    """What of a pod spec the profile `restricted` forbids."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    pod = spec.get("securityContext", {})
    found += [f"sysctl {each['name']}" for each in pod.get("sysctls", [])]
    found += [
        f"volume {each['name']}" for each in spec.get("volumes", []) if each.keys() - {"name"} - _VOLUMES
    ]
    kinds = ("initContainers", "containers", "ephemeralContainers")
    containers = [each for kind in kinds for each in spec.get(kind, [])]
    for container in containers:
        own = container.get("securityContext", {})
        name = container["name"]
        checks = {
            "privileged": own.get("privileged", False),
            "privilege escalation": own.get("allowPrivilegeEscalation") is not False,
            "capabilities": own.get("capabilities", {}).get("drop") != ["ALL"]
            or set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"},
            "root": own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True,
            "user 0": own.get("runAsUser", pod.get("runAsUser")) == 0,
            "seccomp": own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
            not in ("RuntimeDefault", "Localhost"),
            "procMount": own.get("procMount", "Default") != "Default",
            "hostPort": any(port.get("hostPort") for port in container.get("ports", [])),
            "SELinux": own.get("seLinuxOptions", pod.get("seLinuxOptions", {})).keys() & {"user", "role"},
        }
        found += [f"{name}: {check}" for check, broken in checks.items() if broken]
    return found
