from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.cluster.kubeconfig import connect
from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.cluster.pod_access import pod_log
from equipoise.errors import ConfigError, InputError, ServiceError


def config_map(name: str = "a", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


# Which server, and as whom


def test_the_context_decides_server_user_and_namespace(kubeconfig: Path) -> None:
    assert connect(kubeconfig=str(kubeconfig)).namespace == "research"
    assert connect(namespace="other", kubeconfig=str(kubeconfig)).namespace == "other"
    assert connect(context="stranger", kubeconfig=str(kubeconfig)).namespace == "default"


def test_kubeconfig_is_found_as_kubectl_finds_it(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "second"
    second.write_text("apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\n")
    monkeypatch.setenv("KUBECONFIG", f"{second}:{kubeconfig}")
    assert connect(context="test").namespace == "research"
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_bytes(kubeconfig.read_bytes())
    assert connect().namespace == "research"


def test_an_unknown_context_is_one_line_with_the_known_ones(kubeconfig: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such context \(got 'prod'\); choose one of: stranger, test"):
        connect(context="prod", kubeconfig=str(kubeconfig))


def test_without_a_kubeconfig_one_is_told_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no kubeconfig"):
        connect(kubeconfig=str(tmp_path / "absent"))


@pytest.mark.parametrize("content", ["", "[]", "current-context: x\n", "{{{"])
def test_a_broken_kubeconfig_is_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(ConfigError) as found:
        connect(kubeconfig=str(path))
    assert str(path) in str(found.value)


# Apply


def test_applying_twice_changes_nothing(api: KubernetesApi, server: Any) -> None:
    first = api.apply(config_map(x="1"))
    second = api.apply(config_map(x="1"))
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    assert first["metadata"]["generation"] == second["metadata"]["generation"]
    assert all("fieldManager=equipoise" in path for method, path in server.requests if method == "PATCH")


def test_a_dry_run_keeps_nothing(api: KubernetesApi) -> None:
    assert api.apply(config_map(x="1"), dry_run=True)["data"] == {"x": "1"}
    assert api.get("ConfigMap", "a") is None


def test_fields_of_another_tool_are_left_alone_unless_forced(api: KubernetesApi, server: Any) -> None:
    server.apply(("configmaps", "research", "a"), config_map(x="1"), "argocd", False, False)
    with pytest.raises(InputError, match=r'conflict with "argocd".*--force'):
        api.apply(config_map(x="2"))
    assert api.apply(config_map(x="2"), force=True)["data"] == {"x": "2"}


def test_what_changed_in_between_is_not_overwritten(api: KubernetesApi) -> None:
    seen = api.apply(config_map(x="1"))["metadata"]["resourceVersion"]
    api.apply(config_map(x="2"))
    with pytest.raises(ServiceError, match="changed by someone else"):
        api.apply(config_map(x="3"), resource_version=seen)


def test_long_lists_come_page_by_page(api: KubernetesApi, server: Any) -> None:
    for number in range(1234):
        server.put("pods", "research", {"metadata": {"name": f"p{number:04d}"}})
    assert len(api.list_objects("Pod")) == 1234
    assert sum("/pods?" in path for _, path in server.requests) == 3


def test_deleting_says_whether_there_was_anything(api: KubernetesApi) -> None:
    api.apply(config_map())
    assert api.delete("ConfigMap", "a") is True
    assert api.delete("ConfigMap", "a") is False


def test_a_token_file_that_ends_in_a_line_break_is_taken(kubeconfig: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("test-token\n", encoding="utf-8")
    content = kubeconfig.read_text(encoding="utf-8")
    kubeconfig.write_text(content.replace("token: test-token", "tokenFile: token"), encoding="utf-8")
    assert "tokenFile" in kubeconfig.read_text(encoding="utf-8")
    assert connect(kubeconfig=str(kubeconfig)).get("ConfigMap", "a") is None


# Faults


def test_expired_credentials(kubeconfig: Path) -> None:
    api = connect(context="stranger", kubeconfig=str(kubeconfig))
    with pytest.raises(ConfigError, match=r"context stranger: .*expired.*log in again"):
        api.get("ConfigMap", "a")


def test_a_namespace_that_is_not_there(kubeconfig: Path) -> None:
    api = connect(namespace="nowhere", kubeconfig=str(kubeconfig))
    with pytest.raises(InputError, match=r"no such namespace .*kubectl create namespace nowhere"):
        api.apply(config_map())


@pytest.mark.parametrize(
    ("status", "message", "kind", "text"),
    [
        (
            403,
            'configmaps "a" is forbidden: User "x" cannot patch',
            InputError,
            "not allowed: .*ask for a role",
        ),
        (403, "exceeded quota: team, requested: pods=1, used: pods=9", ServiceError, "quota is used up"),
        (403, "status unknown for quota: team, resources: pods", ServiceError, "not been counted yet"),
        (
            403,
            "unable to create new content in namespace research because it is being terminated",
            InputError,
            "the namespace is being deleted",
        ),
        (422, "ConfigMap is invalid: data: too long", InputError, "refuses it: ConfigMap is invalid"),
        (400, "strict decoding error: unknown field", InputError, "refuses it"),
    ],
)
def test_a_refusal_says_why_and_is_not_tried_again(
    status: int, message: str, kind: type[Exception], text: str, api: KubernetesApi, server: Any
) -> None:
    server.refuse("PATCH", "configmaps", status, message)
    with pytest.raises(kind, match=text):
        api.apply(config_map())
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            500,
            "failed to create typed patch object: .spec.authOptions: field not declared in schema",
        ),
        (400, 'strict decoding error: unknown field "spec.rayClusterSpec.authOptions"'),
    ],
)
def test_a_crd_without_a_field_of_ours_asks_for_an_upgrade(
    status: int, message: str, api: KubernetesApi, server: Any
) -> None:
    server.refuse("PATCH", "rayjobs", status, message)
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "a"}, "spec": {}}
    with pytest.raises(InputError, match=r"authOptions.*upgrade KubeRay and its CRDs to 1\.7\.0"):
        api.apply(manifest)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(status: int, api: KubernetesApi, server: Any) -> None:
    server.refuse("GET", "configmaps", status, "too many requests", times=3)
    assert api.get("ConfigMap", "a") is None
    assert len(server.requests) == 4


def test_what_does_not_pass_ends_as_retryable(api: KubernetesApi, server: Any) -> None:
    server.refuse("GET", "configmaps", 503, "etcd leader changed")
    with pytest.raises(ServiceError, match="answers 503: etcd leader changed"):
        api.get("ConfigMap", "a")
    assert len(server.requests) == 4


def test_a_server_that_is_gone(api: KubernetesApi, server: Any) -> None:
    server.stop()
    with pytest.raises(ServiceError, match=r"context test: the API server does not answer: .*refused"):
        api.get("ConfigMap", "a")


def test_a_server_that_comes_back_in_time_is_not_noticed(
    api: KubernetesApi, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.cluster.kubernetes_transport._BACKOFF_S", 0.3)
    server.stop()
    threading.Timer(0.4, server.start).start()
    assert api.get("ConfigMap", "a") is None


def test_a_name_that_does_not_resolve(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.cluster.kubernetes_transport._BACKOFF_S", 0.01)
    values = yaml.safe_load(kubeconfig.read_text())
    values["clusters"][0]["cluster"]["server"] = "https://nowhere.invalid:6443"
    path = tmp_path / "wrong"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ServiceError, match="does not answer") as found:
        connect(kubeconfig=str(path)).get("ConfigMap", "a")
    assert "\n" not in str(found.value)


def test_nothing_of_the_token_is_in_any_message(kubeconfig: Path, server: Any) -> None:
    server.stop()
    with pytest.raises(ServiceError) as found:
        connect(kubeconfig=str(kubeconfig)).get("ConfigMap", "a")
    assert "test-token" not in str(found.value)


# Logs


def test_a_log_comes_line_by_line(api: KubernetesApi, server: Any) -> None:
    server.logs["p"] = [("2026-01-01T00:00:00.1Z", "one"), ("2026-01-01T00:00:01.2Z", "END")]
    assert list(pod_log(api, "p")) == ["2026-01-01T00:00:00.1Z one", "2026-01-01T00:00:01.2Z END"]


def test_a_log_that_breaks_off_is_told_from_one_that_ended(api: KubernetesApi, server: Any) -> None:
    server.logs["p"] = [("2026-01-01T00:00:00.1Z", "one"), ("2026-01-01T00:00:01.2Z", "END")]
    server.break_log_after = [1]
    found = []
    with pytest.raises(ServiceError):
        found.extend(pod_log(api, "p"))
