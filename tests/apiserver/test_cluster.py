"""What only a real API server can say: admission, CEL rules, server-side apply."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from equipoise.cluster.job_manifests import job_manifests
from equipoise.cluster.kubeconfig import connect
from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.cluster.kubernetes_jobs import KubernetesJobs
from equipoise.cluster.manifests import ray_cluster
from equipoise.cluster.names import submission_id
from equipoise.cluster.services import service_manifest
from equipoise.config import RunConfig
from equipoise.config.cluster import ClusterConfig
from equipoise.config.serving import ServingConfig
from equipoise.errors import InputError, ServiceError

Manifest = dict[str, Any]

SIZES: list[Manifest] = [
    {},
    {"worker_groups": [{}], "queue": "team", "storage": {"claim": "runs", "secret": "bucket"}},
    {
        "storage": {"claim": "runs"},
        "worker_groups": [
            {"name": "cpu", "min_workers": 0, "max_workers": 4, "spot": "cloud.google.com/gke-spot=true"},
            {"name": "gpu", "gpus": 2, "tolerations": [{"key": "team", "operator": "Exists"}]},
        ],
        "head": {"node_selector": {"pool": "control"}},
        "redis_address": "redis:6379",
        "redis_secret": "redis",
        "time_limit_s": 60,
        "retries": 1,
    },
]


def run_config(**cluster: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "topics",
            "data": {"train": "sample://reuters-r8/train", "test": "sample://reuters-r8/test"},
            "model": {"teacher": "sample://all-minilm-l6-v2"},
            "cluster": {"image": "registry.example/equipoise:0.1", **cluster},
        }
    )


def every_object(cluster: ClusterConfig) -> list[Manifest]:
    config = run_config(**cluster.model_dump(mode="json", exclude={"image"}))
    return [
        *job_manifests(config, "topics-1a2b3c4d"),
        ray_cluster("shared", cluster),
        service_manifest("s3://models/topics", "topics", cluster, ServingConfig()),
    ]


def pod_specs(value: Any) -> list[Manifest]:
    if isinstance(value, dict):
        own = [value] if "containers" in value else []
        return own + [found for inner in value.values() for found in pod_specs(inner)]
    return [found for inner in value for found in pod_specs(inner)] if isinstance(value, list) else []


@pytest.fixture(params=range(len(SIZES)))
def cluster(request: pytest.FixtureRequest) -> ClusterConfig:
    return ClusterConfig.model_validate({"image": "registry.example/equipoise:0.1", **SIZES[request.param]})


def test_every_object_is_admitted(api: KubernetesApi, cluster: ClusterConfig) -> None:
    for manifest in every_object(cluster):
        found = api.apply(manifest, dry_run=True)
        assert found["metadata"]["name"] == manifest["metadata"]["name"]


def test_every_pod_is_admitted_where_restricted_is_enforced(
    api: KubernetesApi, cluster: ClusterConfig
) -> None:
    specs = [spec for manifest in every_object(cluster) for spec in pod_specs(manifest)]
    for number, spec in enumerate(specs):
        # Priority classes and accounts belong to the cluster; the profile looks at neither.
        spec = {key: value for key, value in spec.items() if key != "priorityClassName"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}"}, "spec": spec}
        api.apply(pod, dry_run=True)
    privileged = {**specs[0], "hostNetwork": True}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": privileged}
    with pytest.raises(InputError, match="PodSecurity"):
        api.apply(pod, dry_run=True)


def test_what_kuberay_forbids_is_refused_with_its_reason(api: KubernetesApi) -> None:
    _, job = job_manifests(run_config(), "topics-1a2b3c4d")
    job["spec"]["deletionStrategy"] = {"onSuccess": {"policy": "DeleteCluster"}}
    with pytest.raises(InputError, match="deletionStrategy"):
        api.apply(job, dry_run=True)
    del job["spec"]["deletionStrategy"]
    job["spec"]["noSuchField"] = 1
    with pytest.raises(InputError, match="noSuchField"):
        api.apply(job, dry_run=True)


def test_a_run_is_submitted_once_and_owns_its_config(api: KubernetesApi) -> None:
    config, jobs = run_config(), KubernetesJobs(api)
    job_id = submission_id(config)
    jobs.submit(job_manifests(config, job_id))
    first = api.get("RayJob", job_id)
    jobs.submit(job_manifests(config, job_id))
    second, held = api.get("RayJob", job_id), api.get("ConfigMap", job_id)
    assert first is not None
    assert second is not None
    assert held is not None
    assert second["metadata"]["generation"] == first["metadata"]["generation"] == 1
    assert held["metadata"]["ownerReferences"][0]["uid"] == first["metadata"]["uid"]
    assert [job.id for job in jobs.list_jobs()] == [job_id]
    assert jobs.cancel(job_id) == [
        f"RayJob {api.namespace}/{job_id}",
        f"ConfigMap {api.namespace}/{job_id}",
    ]
    assert jobs.find(job_id) is None


def test_fields_of_another_manager_are_named_and_taken_only_by_force(api: KubernetesApi, server: Any) -> None:
    from kubernetes import client

    _, job = job_manifests(run_config(), "topics-1a2b3c4d")
    api.apply(job)
    client.CustomObjectsApi(server).patch_namespaced_custom_object(
        "ray.io",
        "v1",
        api.namespace,
        "rayjobs",
        "topics-1a2b3c4d",
        {"spec": {"ttlSecondsAfterFinished": 7}},
        field_manager="someone",
    )
    with pytest.raises(InputError, match=r'"someone".*ttlSecondsAfterFinished.*--force'):
        api.apply(job)
    assert api.apply(job, force=True)["spec"]["ttlSecondsAfterFinished"] == 600


def test_what_changed_in_between_is_not_overwritten(api: KubernetesApi) -> None:
    config_map: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a"},
        "data": {"x": "1"},
    }
    seen = api.apply(config_map)["metadata"]["resourceVersion"]
    api.apply({**config_map, "data": {"x": "2"}})
    with pytest.raises(ServiceError, match="changed by someone else"):
        api.apply({**config_map, "data": {"x": "3"}}, resource_version=seen)


def test_a_namespace_that_is_being_deleted(kubeconfig: Path, server: Any, contents: ModuleType) -> None:
    from kubernetes import client

    api = connect(namespace=contents.make_namespace(server), kubeconfig=str(kubeconfig))
    # A server of our own has no controller that empties a namespace: it stays in that state.
    client.CoreV1Api(server).delete_namespace(api.namespace)
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}}
    with pytest.raises(InputError, match=r"is being deleted|no such namespace"):
        api.apply(config_map)


def test_a_namespace_that_is_not_there(kubeconfig: Path, server: Any) -> None:
    api = connect(namespace="no-such-namespace", kubeconfig=str(kubeconfig))
    with pytest.raises(InputError, match="no such namespace"):
        api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}})
