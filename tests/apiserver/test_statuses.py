"""What KubeRay's operator, the scheduler and the kubelet write, kept by a real API server and read back."""

from __future__ import annotations

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
JOB = submission_id(CONFIG)


@pytest.fixture
def jobs(api: KubernetesApi) -> KubernetesJobs:
    """With one that has been submitted."""
    found = KubernetesJobs(api)
    found.submit(job_manifests(CONFIG, JOB))
    return found


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"jobDeploymentStatus": "Initializing"}, ("starting", "", None)),
        ({"jobDeploymentStatus": "Running", "jobStatus": "PENDING"}, ("starting", "", None)),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, ("running", "", None)),
        ({"jobDeploymentStatus": "Retrying"}, ("starting", "", None)),
        ({"jobDeploymentStatus": "Suspended"}, ("suspended", "suspended", None)),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, ("succeeded", "", None)),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "STOPPED"}, ("stopped", "", None)),
        (
            {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "FAILED",
                "reason": "AppFailed",
                "message": "Job entrypoint command failed with exit code 3, last available logs: x",
            },
            ("failed", "AppFailed: Job entrypoint command failed with exit code 3", 3),
        ),
    ],
)
def test_every_state_of_a_run_is_kept_and_read(
    jobs: KubernetesJobs,
    write_status: Callable[..., None],
    status: Manifest,
    expected: tuple[str, str, int | None],
) -> None:
    write_status("rayjobs", JOB, **status)
    # What the operator wrote is not ours to change.
    jobs.submit(job_manifests(CONFIG, JOB))
    found = jobs.find(JOB)
    assert found is not None
    assert (found.state, found.message, found.exit_code) == expected


def test_why_a_run_does_not_start_comes_from_its_pods_and_their_events(
    jobs: KubernetesJobs, server: Any, namespace: str
) -> None:
    from kubernetes import client

    core = client.CoreV1Api(server)
    _, job = job_manifests(CONFIG, JOB)
    template = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    labels = {**template["metadata"]["labels"], "app.kubernetes.io/instance": JOB}
    spec = {key: value for key, value in template["spec"].items() if key != "priorityClassName"}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "head", "labels": labels}, "spec": spec})
    event = {
        "metadata": {"name": "head.1"},
        "involvedObject": {"kind": "Pod", "name": "head", "namespace": namespace},
        "type": "Warning",
        "reason": "FailedScheduling",
        "message": "0/3 nodes are available: 3 Insufficient cpu",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    core.create_namespaced_event(namespace, event)
    found = jobs.find(JOB)
    assert found is not None
    assert found.message == "pod head: FailedScheduling: 0/3 nodes are available: 3 Insufficient cpu"
    entry = {
        "name": spec["containers"][0]["name"],
        "image": "a",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": {"reason": "InvalidImageName", "message": "couldn't parse image name"}},
    }
    core.patch_namespaced_pod_status("head", namespace, {"status": {"containerStatuses": [entry]}})
    found = jobs.find(JOB)
    assert found is not None
    said = "it can never start: InvalidImageName: couldn't parse image name"
    assert (found.state, found.message) == ("failed", said)


def condition(kind: str) -> Manifest:
    """One that holds."""
    return {
        "type": kind,
        "status": "True",
        "reason": "Test",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def test_a_service_is_ready_when_the_operator_says_so_and_updating_until_it_has_seen_a_change(
    api: KubernetesApi, write_status: Callable[..., None]
) -> None:
    services = Services(api)

    def now() -> tuple[str, str]:
        found = services.find("topics")
        assert found is not None
        return found.phase, found.message

    def deploy(bundle: str) -> None:
        services.deploy(service_manifest(bundle, "topics", CLUSTER, ServingConfig()))

    deploy("s3://models/topics")
    assert now() == ("starting", "")
    write_status("rayservices", "topics", conditions=[condition("Ready")], observedGeneration=1)
    assert services.wait("topics", "s3://models/topics", lambda _: None, timeout_s=5).phase == "ready"
    deploy("s3://models/newer")
    assert now()[0] == "updating"
    both = [condition("Ready"), condition("UpgradeInProgress")]
    write_status("rayservices", "topics", conditions=both, observedGeneration=2)
    assert now()[0] == "updating"
    application = {"status": "DEPLOY_FAILED", "message": "BundleError: s3://models/newer: no bundle"}
    pending = {"applicationStatuses": {"equipoise": application}}
    write_status("rayservices", "topics", pendingServiceStatus=pending)
    assert now() == ("failing", "BundleError: s3://models/newer: no bundle")
    assert services.undeploy("topics") == [f"RayService {api.namespace}/topics"]
