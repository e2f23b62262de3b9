"""As a pod sees it: no kubeconfig, but a service account's token, the server's CA and two variables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from equipoise.cli.main import app
from equipoise.cluster import kubeconfig as found_by
from equipoise.cluster.kubeconfig import connect
from equipoise.errors import ConfigError, InputError

Manifest = dict[str, Any]
Account = Callable[..., Path]


@pytest.fixture
def pod(
    kubeconfig: Path, namespace: str, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The files that a pod of the account `runner` has, and its surroundings."""
    from kubernetes import client

    core, folder = client.CoreV1Api(server), tmp_path / "serviceaccount"
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "runner"}})
    asked: Manifest = {"spec": {"audiences": [], "expirationSeconds": 3600}}
    token = core.create_namespaced_service_account_token("runner", namespace, asked).status.token
    folder.mkdir()
    (folder / "token").write_text(token, encoding="utf-8")
    (folder / "namespace").write_text(namespace, encoding="utf-8")
    own = kubeconfig.parent / "certificates" / "apiserver.crt"
    authority = server.configuration.ssl_ca_cert or (own if own.is_file() else None)
    if authority is None:
        pytest.skip("the kubeconfig for tests names no certificate authority, which a pod would have")
    shutil.copyfile(authority, folder / "ca.crt")
    at = urlsplit(server.configuration.host)
    for name in ("KUBECONFIG", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(at.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(at.port or 443))
    monkeypatch.setattr(found_by, "SERVICE_ACCOUNT", folder)
    return folder


def test_a_pods_account_submits_and_cancels_with_the_rights_that_it_was_given(
    pod: Path, namespace: str, run_file: Path, bind_submitter: Callable[[Manifest], None]
) -> None:
    bind_submitter({"kind": "ServiceAccount", "name": "runner", "namespace": namespace})

    def equipoise(*arguments: str) -> Any:
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    whole = equipoise("submit", "-f", str(run_file), "--detach", "--json")
    assert whole["created"] == [f"{kind} {namespace}/{whole['id']}" for kind in ("ConfigMap", "RayJob")]
    part = equipoise("submit", "-f", str(run_file), "--detach", "--json", "--until", "finetune")
    again = equipoise("submit", "-f", str(run_file), "--detach", "--json", "--until", "finetune")
    assert (again["id"], again["joined"], part["joined"]) == (part["id"], True, False)
    assert {job["id"] for job in equipoise("jobs", "--json")} == {whole["id"], part["id"]}
    removed = equipoise("cancel", part["id"], "--json")["removed"]
    assert removed == [f"{kind} {namespace}/{part['id']}" for kind in ("RayJob", "ConfigMap")]
    assert [job["id"] for job in equipoise("jobs", "--json")] == [whole["id"]]


def test_without_rights_the_account_is_named(pod: Path, namespace: str) -> None:
    who = f"system:serviceaccount:{namespace}:runner"
    with pytest.raises(InputError, match=rf'not allowed: .*User "{who}" cannot list'):
        connect().list_objects("RayJob")


def test_the_namespace_is_the_given_one_then_the_variable_then_the_pods(
    pod: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connect().namespace == namespace
    monkeypatch.setenv("POD_NAMESPACE", "elsewhere")
    assert connect().namespace == "elsewhere"
    assert connect(namespace="given").namespace == "given"
    monkeypatch.delenv("POD_NAMESPACE")
    (pod / "namespace").unlink()
    assert connect().namespace == "default"


def test_a_token_that_ends_in_a_line_break_is_taken(
    pod: Path, namespace: str, bind_submitter: Callable[[Manifest], None]
) -> None:
    """As one that was written by hand; kubectl takes it."""
    bind_submitter({"kind": "ServiceAccount", "name": "runner", "namespace": namespace})
    with (pod / "token").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert connect().list_objects("RayJob") == []


def test_a_kubeconfig_goes_before_the_pods_account(pod: Path, kubeconfig: Path) -> None:
    assert "context" in connect(kubeconfig=str(kubeconfig)).transport.where


@pytest.mark.parametrize("name", ["token", "ca.crt"])
def test_what_a_pod_lacks_is_said_in_one_line(pod: Path, name: str) -> None:
    (pod / name).unlink()
    with pytest.raises(ConfigError, match=r"in cluster: .*does not exist\..*automountServiceAccountToken"):
        connect()


def test_a_token_that_is_no_longer_good_is_said(pod: Path) -> None:
    (pod / "token").write_text("no-longer-good", encoding="utf-8")
    with pytest.raises(ConfigError) as found:
        connect().list_objects("RayJob")
    assert "\n" not in str(found.value)
