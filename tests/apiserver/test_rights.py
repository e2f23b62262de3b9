"""Role-based access control: what the chart's role for submitters lets a real user do, and nothing more."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.cluster.kubeconfig import connect
from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.errors import ConfigError, InputError

Manifest = dict[str, Any]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def submitter(bind_submitter: Callable[[Manifest], None], kubeconfig: Path, namespace: str) -> KubernetesApi:
    """The user `submitter`, whom the chart's role is bound to in the namespace, and nothing else."""
    try:
        found = connect(namespace=namespace, context="submitter", kubeconfig=str(kubeconfig))
    except ConfigError:
        pytest.skip("the kubeconfig for tests has no context `submitter`, a user of that name without rights")
    bind_submitter({"kind": "User", "name": "submitter", "apiGroup": "rbac.authorization.k8s.io"})
    return found


def test_the_role_for_submitters_is_enough_for_every_command(
    submitter: KubernetesApi, equipoise: Command, kubeconfig: Path, namespace: str, run_file: Path
) -> None:
    who = ("--context", "submitter", "--namespace", namespace)
    submitted = equipoise(kubeconfig, "submit", "-f", str(run_file), *who, "--detach")
    assert submitted.returncode == 0, submitted.stderr
    assert "nodes cannot be listed with these rights" in submitted.stdout
    [job] = json.loads(equipoise(kubeconfig, "jobs", *who, "--json").stdout)
    # The commands that it names talk to the same place.
    assert f"equipoise cancel {job['id']} --on kubernetes --namespace {namespace} --context submitter" in (
        submitted.stdout
    )
    assert equipoise(kubeconfig, "cancel", job["id"], *who).returncode == 0
    bundle = "/mnt/equipoise/runs/topics"
    deployed = equipoise(kubeconfig, "deploy", bundle, "-f", str(run_file), *who, "--wait-s", "0")
    assert deployed.returncode == 0, deployed.stderr
    assert equipoise(kubeconfig, "status", "topics", *who).returncode == 0
    assert equipoise(kubeconfig, "undeploy", "topics", *who).returncode == 0


def test_a_quota_is_seen_by_submitters_before_anything_is_created(
    submitter: KubernetesApi,
    equipoise: Command,
    kubeconfig: Path,
    namespace: str,
    run_file: Path,
    server: Any,
) -> None:
    from kubernetes import client

    core, hard = client.CoreV1Api(server), {"requests.cpu": "1"}
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "team"}, "spec": {"hard": hard}})
    status = {"status": {"hard": hard, "used": {"requests.cpu": "0"}}}
    core.patch_namespaced_resource_quota_status("team", namespace, status)
    who = ("--context", "submitter", "--namespace", namespace)
    found = equipoise(kubeconfig, "submit", "-f", str(run_file), *who, "--detach")
    assert found.returncode == 2
    assert "quota team: requests.cpu is 1" in found.stderr
    assert submitter.list_objects("RayJob") == []


@pytest.mark.parametrize("kind", ["pods", "secrets"])
def test_a_submitter_may_neither_make_pods_nor_read_secrets(
    submitter: KubernetesApi, server: Any, namespace: str, kind: str
) -> None:
    from kubernetes import client

    review = client.AuthorizationV1Api(server)
    for verb in ("create", "update") if kind == "pods" else ("get", "list", "create"):
        attributes = {"namespace": namespace, "verb": verb, "group": "", "resource": kind}
        asked = {"spec": {"user": "submitter", "resourceAttributes": attributes}}
        assert not review.create_subject_access_review(asked).status.allowed


def test_rights_end_at_the_namespace(submitter: KubernetesApi) -> None:
    elsewhere = submitter.in_namespace("default")
    with pytest.raises(InputError, match=r'not allowed: .*User "submitter" cannot patch'):
        elsewhere.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}})
    with pytest.raises(InputError, match=r'not allowed: .*User "submitter" cannot list'):
        elsewhere.list_objects("RayJob")


def test_without_rights_one_is_told_which(kubeconfig: Path, namespace: str) -> None:
    try:
        api = connect(namespace=namespace, context="nobody", kubeconfig=str(kubeconfig))
    except ConfigError:
        pytest.skip("the kubeconfig for tests has no context `nobody`, a user without rights")
    with pytest.raises(InputError, match=r'not allowed: .*User "nobody" cannot patch .*"configmaps"'):
        api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}})
