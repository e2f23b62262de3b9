"""helm against an API server: what it finds there decides what is rendered."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]
Helm = Callable[..., Any]

CHART = Path(__file__).resolve().parents[2] / "charts" / "equipoise"


@pytest.fixture(scope="module")
def start_server() -> Iterator[Callable[..., Any]]:
    """`start_server(has_kuberay=False)`: a running API server."""
    path = Path(__file__).with_name("api_server.py")
    spec = importlib.util.spec_from_file_location("chart_api_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    running: list[Any] = []

    def start(**options: Any) -> Any:
        running.append(module.ApiServer(**options))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def on(server: Any, values: str) -> list[str]:
    """Options that render against a server, without keeping anything."""
    file = str(CHART / "ci" / f"{values}-values.yaml")
    return [
        "-n",
        "models",
        "-f",
        file,
        "--dry-run=server",
        "--disable-openapi-validation",
        f"--kube-apiserver={server.url}",
    ]


def secrets(helm: Helm, server: Any, *more: str) -> dict[str, Manifest]:
    done = helm("template", "eq", CHART, *on(server, "kind"), *more)
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == "Secret"}


def create(server: Any, secret: Manifest) -> None:
    """As an install leaves it: helm marks what is its own."""
    secret["metadata"]["annotations"] |= {
        "meta.helm.sh/release-name": "eq",
        "meta.helm.sh/release-namespace": "models",
    }
    server.put(secret)


def test_an_upgrade_keeps_the_keys_of_the_install(helm: Helm, start_server: Callable[..., Any]) -> None:
    server = start_server()
    first = secrets(helm, server)
    assert set(first) == {"eq-equipoise-ray-token", "eq-equipoise-api-keys"}
    # Each rendering draws new ones, or the next lines would prove nothing.
    again = secrets(helm, server)
    assert all(again[name]["data"] != secret["data"] for name, secret in first.items())
    for secret in first.values():
        create(server, secret)
    upgraded = secrets(helm, server, "--set", "serving.options.replicas=3")
    assert {name: each["data"] for name, each in upgraded.items()} == {
        name: each["data"] for name, each in first.items()
    }


def test_keys_that_were_rotated_on_the_cluster_survive_an_upgrade(
    helm: Helm, start_server: Callable[..., Any]
) -> None:
    server = start_server()
    [held] = [each for name, each in secrets(helm, server).items() if name.endswith("api-keys")]
    held["data"] |= {"keys.json": "cm90YXRlZA==", "key": "cm90YXRlZA=="}
    create(server, held)
    upgraded = secrets(helm, server)[held["metadata"]["name"]]
    assert upgraded["data"] == held["data"]


def test_a_cluster_without_kuberay_gets_one_sentence_and_nothing_else(
    helm: Helm, start_server: Callable[..., Any]
) -> None:
    done = helm("install", "eq", CHART, *on(start_server(has_kuberay=False), "default"))
    assert done.returncode != 0
    assert done.stdout == ""
    assert "does not know ray.io/v1 RayService: install the KubeRay operator 1.7.0 first" in done.stderr


def test_a_cluster_without_the_prometheus_operator_gets_no_monitor(
    helm: Helm, start_server: Callable[..., Any]
) -> None:
    done = helm("template", "eq", CHART, *on(start_server(), "default"))
    assert done.returncode == 0, done.stderr
    kinds = {each["kind"] for each in yaml.safe_load_all(done.stdout) if each}
    assert "RayService" in kinds
    assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("default", "It serves no bundle yet: every request is answered 503 no_bundle"),
        ("kind", "It serves /equipoise/runs/demo/bundle."),
    ],
)
def test_the_notes_tell_the_next_three_commands(
    helm: Helm, start_server: Callable[..., Any], values: str, said: str
) -> None:
    done = helm("install", "eq", CHART, *on(start_server(), values))
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert said in notes
    assert "secret eq-equipoise-api-keys holds one under key" in notes
    commands = commands_of(notes)
    assert len(commands) == 3
    assert all("models" in command for command in commands)


def commands_of(notes: str) -> list[str]:
    return re.findall(r"^  ((?:kubectl|helm) .+)$", notes, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("kind", "sets"),
    [
        ("pvc", "--set serving.bundle=/equipoise/runs/demo/bundle"),
        ("s3", "--set serving.bundle=s3://YOUR-BUCKET/runs/demo/bundle"),
        ("gcs", "--set serving.bundle=gs://YOUR-BUCKET/runs/demo/bundle"),
        ("none", "--set storage.kind=s3 --set serving.bundle=s3://YOUR-BUCKET/runs/demo/bundle"),
    ],
)
def test_the_notes_name_a_bundle_where_the_storage_has_one(
    helm: Helm, start_server: Callable[..., Any], kind: str, sets: str
) -> None:
    server = start_server()
    done = helm("install", "eq", CHART, *on(server, "default"), "--set", f"storage.kind={kind}")
    assert done.returncode == 0, done.stderr
    [upgrade] = [each for each in commands_of(done.stdout) if each.startswith("helm upgrade")]
    assert upgrade == f"helm upgrade eq charts/equipoise -n models --reuse-values {sets}"
    # What it says can be rendered.
    given = ["--set", f"storage.kind={kind}", *sets.split()]
    followed = helm("template", "eq", CHART, *on(server, "default"), *given)
    assert followed.returncode == 0, followed.stderr


def test_the_notes_without_an_endpoint_speak_of_none(helm: Helm, start_server: Callable[..., Any]) -> None:
    done = helm("install", "eq", CHART, *on(start_server(), "run"))
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert all(word not in notes for word in ("serves", "API key", "rayservice", "helm test", "8000"))
    commands = commands_of(notes)
    assert commands[0] == "kubectl -n models get rayclusters,rayjobs"
    assert len(commands) == 3
    assert all("models" in command for command in commands)


def test_the_notes_without_keys_name_no_secret(helm: Helm, start_server: Callable[..., Any]) -> None:
    done = helm("install", "eq", CHART, *on(start_server(), "kind"), "--set", "auth.apiKeys.enabled=false")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "It serves /equipoise/runs/demo/bundle." in notes
    assert "API key" not in notes
