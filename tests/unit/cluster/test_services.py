"""Bundles as RayServices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.bundle import open_bundle, write_bundle
from equipoise.bundle_fetch import fetch_bundle
from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.cluster.services import Services, read_service, require_shared, service_manifest, shared_bundle
from equipoise.config.cluster import ClusterConfig
from equipoise.config.serving import ServingConfig
from equipoise.errors import BundleError, ConfigError, InputError, ServiceError
from equipoise.tasks.text_classification import TextClassification

Manifest = dict[str, Any]


@pytest.fixture
def services(api: KubernetesApi, server: Any, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setattr("equipoise.cluster.services._POLL_S", 0.02)
    allocatable = {"cpu": "64", "memory": "256Gi"}
    server.put("nodes", "", {"metadata": {"name": "n"}, "spec": {}, "status": {"allocatable": allocatable}})
    return Services(api)


@pytest.fixture
def bundle(tmp_path: Path, tiny_classifier: Path, tiny_task: TextClassification) -> Path:
    write_bundle(
        tmp_path / "bundle",
        name="topics",
        task=tiny_task,
        engine="torch",
        precision="fp32",
        model_folder=tiny_classifier,
        candidate={},
    )
    return tmp_path / "bundle"


def status(ready: bool, *, upgrading: bool = False, generation: int = 1, **application: Any) -> Manifest:
    conditions = [
        {"type": "Ready", "status": str(ready), "message": "Number of serve endpoints is 0"},
        {"type": "UpgradeInProgress", "status": str(upgrading)},
    ]
    active = {"applicationStatuses": {"equipoise": application}} if application else {}
    return {"conditions": conditions, "observedGeneration": generation, "activeServiceStatus": active}


# What is deployed


def test_a_bundle_of_this_machine_is_uploaded_once_and_every_node_can_fetch_it(
    bundle: Path, tmp_path: Path, cluster_config: Callable[..., ClusterConfig]
) -> None:
    store = f"file://{tmp_path}/store"
    cluster = cluster_config(storage={"bucket": store})
    planned, _ = shared_bundle(str(bundle), cluster, upload=False)
    assert not (tmp_path / "store").exists()
    uri, name = shared_bundle(str(bundle), cluster)
    assert (uri, name) == (planned, "topics")
    there = Path(uri.removeprefix("file://"))
    written = {path: path.stat().st_mtime_ns for path in there.rglob("*") if path.is_file()}
    assert shared_bundle(str(bundle), cluster) == (uri, name)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert open_bundle(fetch_bundle(uri, tmp_path / "cache")).manifest == open_bundle(bundle).manifest


def test_a_damaged_bundle_is_not_uploaded(
    bundle: Path, tmp_path: Path, cluster_config: Callable[..., ClusterConfig]
) -> None:
    (bundle / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json was changed"):
        shared_bundle(str(bundle), cluster_config(storage={"bucket": f"file://{tmp_path}/store"}))
    assert not (tmp_path / "store").exists()


def test_a_bundle_that_pods_cannot_read_is_refused(
    bundle: Path, cluster_config: Callable[..., ClusterConfig]
) -> None:
    with pytest.raises(InputError, match=r"pods cannot read it; set cluster\.storage\.bucket"):
        shared_bundle(str(bundle), cluster_config())
    require_shared("s3://models/topics", cluster_config())
    require_shared("/mnt/equipoise/runs/topics", cluster_config())


def test_a_path_on_the_claim_is_taken_as_pods_see_it(cluster_config: Callable[..., ClusterConfig]) -> None:
    cluster = cluster_config()
    assert shared_bundle("/mnt/equipoise/runs/topics", cluster) == ("/mnt/equipoise/runs/topics", "topics")
    path = "/mnt/equipoise/runs/topics/bundle"
    assert shared_bundle(path, cluster) == (path, "topics")


# How it is applied


def manifest_of(cluster: ClusterConfig, bundle: str = "s3://b/topics") -> Manifest:
    return service_manifest(bundle, "topics", cluster, ServingConfig())


def test_deploying_twice_is_one_service_and_undeploying_removes_it(
    services: Services, cluster_config: Callable[..., ClusterConfig], server: Any
) -> None:
    cluster = cluster_config()
    assert services.deploy(manifest_of(cluster)) == "RayService research/topics"
    services.deploy(manifest_of(cluster, "s3://b/newer"))
    [found] = services.list_services()
    assert found.bundle == "s3://b/newer"
    assert services.undeploy("topics") == ["RayService research/topics"]
    assert services.undeploy("topics") == []
    assert [key for key in server.objects if key[0] != "nodes"] == []


def test_two_deployments_at_once_are_told_apart(
    services: Services, cluster_config: Callable[..., ClusterConfig], server: Any
) -> None:
    cluster = cluster_config()
    services.deploy(manifest_of(cluster))
    # Between the look at the object and its change, someone else changes it.
    original, other = services.api.get, manifest_of(cluster, "s3://b/theirs")

    def get(kind: str, name: str) -> Manifest | None:
        found = original(kind, name)
        server.apply(("rayservices", "research", "topics"), other, "equipoise", True, False)
        return found

    services.api.get = get  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match="changed by someone else at the same time") as found:
        services.deploy(manifest_of(cluster, "s3://b/ours"))
    assert found.value.exit_status == 6
    held = services.find("topics")
    assert held is not None
    assert held.bundle == "s3://b/theirs"


def test_a_deployment_that_another_one_replaces_while_it_comes_up_says_so(
    services: Services, cluster_config: Callable[..., ClusterConfig]
) -> None:
    cluster = cluster_config()
    services.deploy(manifest_of(cluster, "s3://b/theirs"))
    with pytest.raises(ServiceError, match="another deployment took its place: s3://b/theirs"):
        services.wait("topics", "s3://b/ours", lambda _: None, timeout_s=1)


def test_pods_that_never_fit_are_refused_before_anything_is_created(
    services: Services, cluster_config: Callable[..., ClusterConfig], server: Any
) -> None:
    cluster = cluster_config(worker_groups=[{"gpus": 8}])
    with pytest.raises(InputError, match=r"workers: each pod asks for .*8 GPUs"):
        services.check(manifest_of(cluster), cluster)
    assert not any(method == "PATCH" for method, _ in server.requests)


# How it is doing


@pytest.mark.parametrize(
    ("written", "phase"),
    [
        ({}, "starting"),
        (status(False), "starting"),
        (status(True), "ready"),
        (status(True, upgrading=True), "updating"),
        (status(True, generation=0), "updating"),
        (status(False, status="DEPLOY_FAILED", message="BundleError: no bundle"), "failing"),
    ],
)
def test_every_phase_is_read_from_what_kuberay_writes(written: Manifest, phase: str) -> None:
    manifest = {"metadata": {"name": "topics", "generation": 1}, "status": written}
    found = read_service(manifest, "research")
    assert found.phase == phase
    assert found.address == "http://topics-serve-svc.research:8000"
    assert ("BundleError" in found.message) == (phase == "failing")


def test_waiting_tells_what_for_and_ends_when_it_serves(
    services: Services, cluster_config: Callable[..., ClusterConfig], server: Any
) -> None:
    cluster = cluster_config()
    services.deploy(manifest_of(cluster))
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}
    labels = {"app.kubernetes.io/instance": "topics"}
    server.put(
        "pods",
        "research",
        {"metadata": {"name": "head", "labels": labels}, "status": {"containerStatuses": [waiting]}},
    )

    def come_up() -> None:
        time.sleep(0.3)
        server.set_status("rayservices", "research", "topics", **status(True))

    threading.Thread(target=come_up, daemon=True).start()
    said: list[str] = []
    assert services.wait("topics", "s3://b/topics", said.append, timeout_s=10).phase == "ready"
    assert said == ["topics starting: pod head: ImagePullBackOff: Back-off"]


def test_an_image_that_cannot_be_pulled_ends_the_wait_with_what_is_there(
    services: Services,
    cluster_config: Callable[..., ClusterConfig],
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("equipoise.cluster.image_pulls.GIVE_UP_S", 0.2)
    services.deploy(manifest_of(cluster_config()))
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}}
    metadata = {"name": "head", "labels": {"app.kubernetes.io/instance": "topics"}}
    server.put("pods", "research", {"metadata": metadata, "status": {"containerStatuses": [waiting]}})
    with pytest.raises(InputError, match=r"could not be pulled for .*: manifest unknown") as found:
        services.wait("topics", "s3://b/topics", lambda _: None, timeout_s=30)
    assert "equipoise undeploy topics --namespace research" in str(found.value)


@pytest.mark.parametrize("part", ["activeServiceStatus", "pendingServiceStatus"])
@pytest.mark.parametrize("head_is_up", [True, False])
def test_a_quota_that_blocks_kuberays_pods_is_read_from_its_clusters(
    part: str,
    head_is_up: bool,
    services: Services,
    cluster_config: Callable[..., ClusterConfig],
    server: Any,
) -> None:
    services.deploy(manifest_of(cluster_config()))
    server.set_status("rayservices", "research", "topics", **{part: {"rayClusterName": "topics-x1"}})
    if head_is_up:
        labels = {"app.kubernetes.io/instance": "topics"}
        metadata = {"name": "head", "labels": labels, "creationTimestamp": "2026-01-01T00:00:05Z"}
        up = {"phase": "Running", "containerStatuses": [{"ready": True}]}
        server.put("pods", "research", {"metadata": metadata, "status": up})
    event = {
        "metadata": {"name": "e"},
        "type": "Warning",
        "reason": "FailedToCreateWorkerPod",
        "message": "exceeded quota: team",
        "lastTimestamp": "2026-01-01T00:00:06Z",
        "involvedObject": {"kind": "RayCluster", "name": "topics-x1"},
    }
    server.put("events", "research", event)
    found = services.find("topics")
    assert found is not None
    assert (found.phase, found.message) == (
        "starting",
        "FailedToCreateWorkerPod: exceeded quota: team",
    )


def test_a_server_that_goes_and_comes_back_while_one_waits_is_said_and_waited_for(
    services: Services, cluster_config: Callable[..., ClusterConfig], server: Any
) -> None:
    services.deploy(manifest_of(cluster_config()))
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        if "no contact" in text:
            server.start()
            server.set_status("rayservices", "research", "topics", **status(True))

    server.stop()
    assert services.wait("topics", "s3://b/topics", tell, timeout_s=30).phase == "ready"
    assert [line for line in said if line.startswith("topics no contact: the API server does not answer")]


def test_credentials_that_expire_while_one_waits_leave_a_line_that_names_what_is_there(
    services: Services, cluster_config: Callable[..., ClusterConfig], server: Any
) -> None:
    services.deploy(manifest_of(cluster_config()))
    server.refuse("GET", "rayservices", 401, "Unauthorized")
    with pytest.raises(ConfigError, match="may have expired") as found:
        services.wait("topics", "s3://b/topics", lambda _: None, timeout_s=30)
    remove = "`equipoise undeploy topics --namespace research"
    assert f"RayService research/topics is there; {remove}" in str(found.value)


def test_more_than_the_quota_as_such_is_refused_before_anything_is_created(
    services: Services, cluster_config: Callable[..., ClusterConfig], server: Any
) -> None:
    hard = {"hard": {"requests.cpu": "1"}, "used": {"requests.cpu": "0"}}
    server.put("resourcequotas", "research", {"metadata": {"name": "team"}, "status": hard})
    cluster = cluster_config()
    with pytest.raises(InputError, match=r"quota team: requests\.cpu is 1"):
        services.check(manifest_of(cluster), cluster)


def test_the_time_over_it_goes_on_and_both_next_commands_are_named(
    services: Services, cluster_config: Callable[..., ClusterConfig]
) -> None:
    cluster = cluster_config()
    services.deploy(manifest_of(cluster))
    with pytest.raises(ServiceError, match="not ready after 0 s") as found:
        services.wait("topics", "s3://b/topics", lambda _: None, timeout_s=0.1)
    for command in ("status", "undeploy"):
        assert f"equipoise {command} topics --namespace research" in str(found.value)
