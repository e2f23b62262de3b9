"""Every object that the code builds is one that a real API server and KubeRay would take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.cluster.manifests import ray_cluster, ray_job, ray_service, run_config_map
from equipoise.config.cluster import ClusterConfig
from equipoise.config.serving import ServingConfig
from equipoise.errors import ConfigError
from equipoise_serving.app import ApplicationArgs, build

Manifest = dict[str, Any]

EVERYTHING = {
    "image_pull_secrets": ["registry"],
    "service_account": "runner",
    "priority_class": "batch",
    "head": {"cpus": 4, "memory_gib": 12.5, "node_selector": {"pool": "control"}},
    "worker_groups": [
        {
            "name": "cpu",
            "min_workers": 2,
            "max_workers": 2,
            "tolerations": [{"key": "team", "value": "ml", "effect": "NoSchedule"}],
        },
        {
            "name": "gpu",
            "gpus": 1,
            "min_workers": 0,
            "max_workers": 8,
            "spot": "cloud.google.com/gke-spot=true",
        },
    ],
    "storage": {"claim": "runs", "secret": "bucket"},
    "time_limit_s": 3600,
    "retries": 2,
    "redis_address": "redis:6379",
    "redis_secret": "redis",
}


def every_kind(cluster: ClusterConfig) -> list[Manifest]:
    return [
        ray_cluster("shared", cluster),
        ray_job("topics-1a2b", cluster, "/mnt/equipoise/runs/topics"),
        ray_service("topics", "s3://bucket/topics", cluster, ServingConfig(replicas=3)),
        run_config_map("topics-1a2b", {"run.yaml": "name: topics\n"}),
    ]


def templates(manifest: Manifest) -> list[Manifest]:
    """Whatever has containers, however deep."""
    found: list[Manifest] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "containers" in value:
                found.append(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(manifest)
    return found


@pytest.mark.parametrize("values", [{}, {"worker_groups": []}, {"queue": "team"}, EVERYTHING])
def test_an_api_server_would_take_every_object(
    values: Manifest,
    cluster_config: Callable[..., ClusterConfig],
    check_object: Callable[[Manifest], None],
) -> None:
    for manifest in every_kind(cluster_config(**values)):
        check_object(manifest)


def test_the_check_refuses_what_an_api_server_would(
    cluster_config: Callable[..., ClusterConfig], check_object: Callable[[Manifest], None]
) -> None:
    """Without this the test above could pass by checking nothing."""
    import jsonschema

    job = ray_job("topics", cluster_config(), "/runs")
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["nodeSelectors"] = {}
    with pytest.raises(jsonschema.ValidationError, match="nodeSelectors"):
        check_object(job)
    job = ray_job("topics", cluster_config(), "/runs")
    job["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "tokens"
    with pytest.raises(jsonschema.ValidationError, match="tokens"):
        check_object(job)


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_every_pod_is_within_the_restricted_profile(
    values: Manifest, cluster_config: Callable[..., ClusterConfig]
) -> None:
    pods = [pod for manifest in every_kind(cluster_config(**values)) for pod in templates(manifest)]
    assert len(pods) >= 6
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} <= {
            "configMap",
            "emptyDir",
            "persistentVolumeClaim",
            "secret",
        }
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


def test_only_a_head_with_an_autoscaler_has_a_token_of_the_api_server(
    cluster_config: Callable[..., ClusterConfig],
) -> None:
    fixed, scaled = (ray_cluster("c", cluster_config(**values)) for values in ({}, EVERYTHING))
    assert [pod["automountServiceAccountToken"] for pod in templates(fixed)] == [False, False]
    assert [pod["automountServiceAccountToken"] for pod in templates(scaled)] == [True, False, False]
    assert "enableInTreeAutoscaling" not in fixed["spec"]
    assert scaled["spec"]["enableInTreeAutoscaling"] is True


def test_rays_pods_leave_the_label_to_kuberay_that_its_services_select_by(
    cluster_config: Callable[..., ClusterConfig],
) -> None:
    cluster = ray_cluster("shared", cluster_config())["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        assert labels.keys().isdisjoint({"app.kubernetes.io/name", "app.kubernetes.io/created-by"})
        assert labels["app.kubernetes.io/instance"] == "shared"


def test_authentication_is_written_out(cluster_config: Callable[..., ClusterConfig]) -> None:
    cluster, job, service, _ = every_kind(cluster_config())
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_timings_have_their_slot_wherever_tasks_run(cluster_config: Callable[..., ClusterConfig]) -> None:
    with_workers = ray_cluster("c", cluster_config())["spec"]
    alone = ray_cluster("c", cluster_config(worker_groups=[]))["spec"]
    assert with_workers["headGroupSpec"]["resources"] == {"CPU": "0"}
    assert with_workers["workerGroupSpecs"][0]["resources"] == {"measured_slot": "1"}
    assert alone["headGroupSpec"]["resources"] == {"measured_slot": "1"}


def test_kueue_admits_a_job_before_it_starts(cluster_config: Callable[..., ClusterConfig]) -> None:
    job = ray_job("topics", cluster_config(queue="team"), "/runs")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert job["spec"]["suspend"] is True
    # KubeRay refuses a suspended job that would leave its cluster behind.
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "preRunningDeadlineSeconds" not in job["spec"]


def test_spot_and_gpu_nodes_are_selected_and_tolerated(cluster_config: Callable[..., ClusterConfig]) -> None:
    cpu, gpu = ray_cluster("c", cluster_config(**EVERYTHING))["spec"]["workerGroupSpecs"]
    pod = gpu["template"]["spec"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-spot": "true"}
    assert {entry["key"] for entry in pod["tolerations"]} == {"cloud.google.com/gke-spot", "nvidia.com/gpu"}
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert gpu["labels"] == {"ray.io/market-type": "spot"}
    assert "replicas" not in gpu
    assert cpu["replicas"] == 2


def test_the_served_application_is_one_that_the_builder_takes(
    cluster_config: Callable[..., ClusterConfig],
) -> None:
    service = ray_service("topics", "s3://b/topics", cluster_config(), ServingConfig(replicas=3))
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    [application] = config["applications"]
    assert application["import_path"] == f"{build.__module__}:{build.__name__}"
    given = ApplicationArgs.model_validate(application["args"])
    assert given.bundle == "s3://b/topics"
    assert (given.serving.replicas, given.serving.host, given.serving.port) == (3, "0.0.0.0", 8000)
    # It is reached by others, so it asks for a key, whose hashes each pod has.
    assert given.serving.api_keys == "/etc/equipoise/keys/keys.json"
    for pod in templates(service):
        [mount] = [found for found in pod["containers"][0]["volumeMounts"] if found["name"] == "api-keys"]
        assert (mount["mountPath"], mount["readOnly"]) == ("/etc/equipoise/keys", True)
        assert {"secret"} <= {key for volume in pod["volumes"] for key in volume}


def test_pods_need_an_image() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.image"):
        ray_cluster("c", ClusterConfig())


@given(
    cpus=st.integers(1, 512),
    memory_gib=st.floats(0.25, 4096, allow_nan=False),
    gpus=st.integers(0, 16),
    low=st.integers(0, 100),
    more=st.integers(0, 100),
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_group_asks_for_exactly_what_it_is_held_to(
    cpus: int,
    memory_gib: float,
    gpus: int,
    low: int,
    more: int,
    cluster_config: Callable[..., ClusterConfig],
) -> None:
    group = {
        "cpus": cpus,
        "memory_gib": memory_gib,
        "gpus": gpus,
        "min_workers": low,
        "max_workers": max(1, low + more),
    }
    [found] = ray_cluster("c", cluster_config(worker_groups=[group]))["spec"]["workerGroupSpecs"]
    resources = found["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert int(resources["limits"]["memory"].removesuffix("Mi")) == pytest.approx(memory_gib * 1024, abs=1)
    assert found["minReplicas"] <= found["maxReplicas"]
