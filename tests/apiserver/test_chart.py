"""The chart and the plain manifests on a real API server: admission, upgrades, what an uninstall leaves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]
Run = Callable[..., subprocess.CompletedProcess[str]]

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "equipoise"
CI = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
K8S = REPOSITORY / "k8s"
# Manifests and kustomizations of kinds that the API server and KubeRay know.
PLAIN = [
    "namespace.yaml",
    "network.yaml",
    "storage.yaml",
    "exporter.yaml",
    "raycluster.gpu.yaml",
    "rayservice.classifier.yaml",
    "rayservice.generation.yaml",
    "rayjob.finetune.yaml",
    "rayjob.distill.yaml",
    "rayjob.search.yaml",
    "kind",
]
# Of Kueue's kinds and the Prometheus operator's.
FOREIGN = ["kueue.queues.yaml", "monitoring"]


@pytest.fixture
def helm(
    kubernetes_tools: dict[str, str], kubeconfig: Path, namespace: str, tmp_path: Path, server: Any
) -> Run:
    """`helm("install", "eq", …)` in a namespace of its own."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))},
        "KUBECONFIG": str(kubeconfig),
        "HELM_CACHE_HOME": str(tmp_path / "cache"),
        "HELM_CONFIG_HOME": str(tmp_path / "config"),
        "HELM_DATA_HOME": str(tmp_path / "data"),
    }

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [kubernetes_tools["helm"], *map(str, arguments), "-n", namespace]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done

    return call


def values(name: str) -> str:
    return str(CHART / "ci" / f"{name}-values.yaml")


@pytest.mark.parametrize("name", CI)
def test_every_object_of_the_chart_is_admitted(helm: Run, name: str) -> None:
    """CEL rules of the CRDs, defaults, field names: by a dry run on the server."""
    helm("install", "eq", CHART, "-f", values(name), "--dry-run=server")
    helm("install", "eq", CHART, "-f", values(name))
    helm("uninstall", "eq")


@pytest.mark.parametrize("name", ["default", "s3", "gpu"])
@pytest.mark.usefixtures("foreign_kinds")
def test_the_charts_monitors_and_rules_are_admitted_where_their_kinds_are_known(
    helm: Run, server: Any, namespace: str, name: str
) -> None:
    from kubernetes import client

    helm("install", "eq", CHART, "-f", values(name))
    custom = client.CustomObjectsApi(server)
    kinds = ("podmonitors", "servicemonitors", "prometheusrules")
    found = {
        kind: len(
            custom.list_namespaced_custom_object("monitoring.coreos.com", "v1", namespace, kind)["items"]
        )
        for kind in kinds
    }
    assert found == {"podmonitors": 1, "servicemonitors": 1, "prometheusrules": 2}
    helm("uninstall", "eq")


@pytest.fixture
def admit(
    kubernetes_tools: dict[str, str], kubeconfig: Path, namespace: str, server: Any, tmp_path: Path
) -> Callable[[str], None]:
    """`admit("network.yaml")`: a manifest or kustomization of k8s/, held before the server in a dry run."""
    kubectl = kubernetes_tools["kubectl"]

    def call(name: str) -> None:
        path = K8S / name
        if path.is_dir():
            build = [kubectl, "kustomize", "--load-restrictor", "LoadRestrictionsNone", str(path)]
            text = subprocess.run(build, capture_output=True, text=True, timeout=60, check=True).stdout
        else:
            text = path.read_text(encoding="utf-8")
        done = subprocess.run(
            [
                *(kubectl, f"--kubeconfig={kubeconfig}", f"--cache-dir={tmp_path}"),
                *("apply", "--dry-run=server", "--validate=strict", "-f", "-"),
            ],
            input=text.replace("namespace: equipoise", f"namespace: {namespace}"),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("(server dry run)") == len(
            [each for each in yaml.safe_load_all(text) if each]
        )
        # Pod Security only warns of a template; a warning is a refusal of the pod later on.
        assert "would violate PodSecurity" not in done.stderr

    return call


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_manifest_is_admitted(admit: Callable[[str], None], name: str) -> None:
    admit(name)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.usefixtures("foreign_kinds")
def test_every_manifest_of_foreign_kinds_is_admitted(admit: Callable[[str], None], name: str) -> None:
    admit(name)


def test_no_manifest_is_left_out() -> None:
    own = {path.name for path in K8S.glob("*.yaml")} - {"kustomization.yaml"}
    folders = {path.parent.name for path in K8S.glob("*/kustomization.yaml")}
    assert own | folders == {*PLAIN, *FOREIGN}


def test_upgrade_rollback_and_uninstall_keep_keys_and_volume(helm: Run, server: Any, namespace: str) -> None:
    from kubernetes import client

    core, custom = client.CoreV1Api(server), client.CustomObjectsApi(server)

    def data(name: str) -> Any:
        return core.read_namespaced_secret(f"eq-equipoise-{name}", namespace).data

    def serve_config() -> str:
        found = custom.get_namespaced_custom_object("ray.io", "v1", namespace, "rayservices", "eq-equipoise")
        return str(found["spec"]["serveConfigV2"])

    helm("install", "eq", CHART, "-f", values("kind"))
    keys, token, first = data("api-keys"), data("ray-token"), serve_config()
    helm("upgrade", "eq", CHART, "-f", values("kind"), "--set", "serving.options.replicas=3")
    assert serve_config() != first
    helm("rollback", "eq", "1")
    assert serve_config() == first
    helm("uninstall", "eq")
    assert (data("api-keys"), data("ray-token")) == (keys, token)
    core.read_namespaced_persistent_volume_claim("eq-equipoise-data", namespace)
    services = custom.list_namespaced_custom_object("ray.io", "v1", namespace, "rayservices")
    assert services["items"] == []
    helm("install", "eq", CHART, "-f", values("kind"))
    assert (data("api-keys"), data("ray-token")) == (keys, token)
