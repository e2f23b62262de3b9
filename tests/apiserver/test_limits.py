"""Quotas that are used up, and several at once who change the same thing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from equipoise.cluster.job_manifests import job_manifests
from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.cluster.kubernetes_jobs import KubernetesJobs
from equipoise.cluster.names import submission_id
from equipoise.cluster.services import Services, service_manifest
from equipoise.config import RunConfig
from equipoise.config.cluster import ClusterConfig
from equipoise.config.serving import ServingConfig
from equipoise.errors import EquipoiseError, ServiceError

Manifest = dict[str, Any]

CLUSTER = ClusterConfig(image="registry.example/equipoise:0.1")
CONFIG = RunConfig.model_validate(
    {
        "name": "topics",
        "data": {"train": "sample://reuters-r8/train", "test": "sample://reuters-r8/test"},
        "model": {"teacher": "sample://all-minilm-l6-v2"},
        "cluster": CLUSTER.model_dump(mode="json"),
    }
)


@pytest.fixture
def limit(server: Any, namespace: str) -> Callable[..., None]:
    """`limit({"count/rayjobs.ray.io": "0"})`: a quota, as its controller leaves it once it has counted."""
    from kubernetes import client

    core = client.CoreV1Api(server)

    def create(hard: dict[str, str], *, counted: bool = True) -> None:
        quota = {"metadata": {"name": "team"}, "spec": {"hard": hard}}
        core.create_namespaced_resource_quota(namespace, quota)
        used = {"used": dict.fromkeys(hard, "0")} if counted else {}
        core.patch_namespaced_resource_quota_status("team", namespace, {"status": {"hard": hard, **used}})

    return create


def _refused_for_now(api: KubernetesApi) -> ServiceError:
    jobs = KubernetesJobs(api)
    with pytest.raises(ServiceError) as found:
        jobs.submit(job_manifests(CONFIG, submission_id(CONFIG)))
    assert jobs.list_jobs() == []
    return found.value


def test_a_quota_of_objects_that_is_used_up_is_worth_a_retry(
    api: KubernetesApi, limit: Callable[..., None]
) -> None:
    limit({"count/rayjobs.ray.io": "0"})
    found = _refused_for_now(api)
    assert "the namespace's quota is used up" in str(found)
    assert "count/rayjobs.ray.io" in str(found)
    assert api.get("ConfigMap", submission_id(CONFIG)) is None


def test_a_quota_used_up_between_the_check_and_the_job_names_the_config_map_that_stays(
    api: KubernetesApi, limit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = api.apply

    def apply(manifest: Manifest, **options: Any) -> Manifest:
        if manifest["kind"] == "ConfigMap" and not options.get("dry_run"):
            limit({"count/rayjobs.ray.io": "0"})
        return original(manifest, **options)

    monkeypatch.setattr(api, "apply", apply)
    found, job_id = str(_refused_for_now(api)), submission_id(CONFIG)
    assert f"ConfigMap {api.namespace}/{job_id} is there" in found
    assert f"`equipoise cancel {job_id} --on kubernetes --namespace {api.namespace}" in found
    assert KubernetesJobs(api).cancel(job_id) == [f"ConfigMap {api.namespace}/{job_id}"]


def test_a_quota_that_was_not_counted_yet_is_worth_a_retry(
    api: KubernetesApi, limit: Callable[..., None]
) -> None:
    limit({"count/rayjobs.ray.io": "1"}, counted=False)
    assert "has not been counted yet" in str(_refused_for_now(api))


def test_two_submissions_at_once_make_one_job(api: KubernetesApi) -> None:
    job_id = submission_id(CONFIG)
    faults = _together(lambda: KubernetesJobs(api).submit(job_manifests(CONFIG, job_id)))
    assert [type(fault) for fault in faults] in ([], [ServiceError])
    [job] = KubernetesJobs(api).list_jobs()
    held, owned = api.get("RayJob", job_id), api.get("ConfigMap", job_id)
    assert held is not None
    assert owned is not None
    assert job.id == job_id
    assert [owner["uid"] for owner in owned["metadata"]["ownerReferences"]] == [held["metadata"]["uid"]]


def test_of_two_deployments_at_once_one_ends_and_names_the_other(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def manifest(bundle: str) -> Manifest:
        return service_manifest(bundle, "topics", CLUSTER, ServingConfig())

    Services(api).deploy(manifest("s3://b/first"))
    original, looked = api.get, threading.Barrier(2, timeout=60)

    def get(kind: str, name: str) -> Manifest | None:
        found = original(kind, name)
        # Both have looked at the object, and neither has changed it.
        looked.wait()
        return found

    monkeypatch.setattr(api, "get", get)
    bundles = iter(("s3://b/ours", "s3://b/theirs"))
    [fault] = _together(lambda: Services(api).deploy(manifest(next(bundles))))
    assert isinstance(fault, ServiceError)
    assert "changed by someone else at the same time" in str(fault)
    assert f"RayService {api.namespace}/topics" in str(fault)


def _together(act: Callable[[], object]) -> list[EquipoiseError]:
    """Do the same twice at once; returns the faults."""
    faults: list[EquipoiseError] = []

    def run() -> None:
        try:
            act()
        except EquipoiseError as error:
            faults.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return faults
