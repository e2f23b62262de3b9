"""What the code builds, beside chart and plain manifests: their network lets it work, and the three agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.cluster.manifests import ray_cluster, ray_job, ray_service
from equipoise.config.cluster import ClusterConfig
from equipoise.config.serving import ServingConfig

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
Find = Callable[..., Manifest]

K8S = Path(__file__).resolve().parents[2] / "k8s"
NAMESPACE = "equipoise"

CLUSTER = ClusterConfig.model_validate(
    {
        "namespace": NAMESPACE,
        "image": "registry.example/equipoise:0.1",
        "storage": {"claim": "equipoise-data", "mount_path": "/equipoise"},
        "worker_groups": [{"min_workers": 1, "max_workers": 4}],
    }
)
JOB = ray_job("topics-1a2b", CLUSTER, "/equipoise/runs/topics")
SERVICE = ray_service("topics", "s3://bucket/topics", CLUSTER, ServingConfig())
JOBS_CLUSTER = ray_cluster("shared", CLUSTER)


def read(name: str) -> list[Manifest]:
    text = (K8S / name).read_text(encoding="utf-8")
    return [found for found in yaml.safe_load_all(text) if found]


def spec_of(manifest: Manifest) -> Manifest:
    spec: Manifest = manifest["spec"]
    return spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec


# Network


class Pod:
    """A pod of a namespace, with the labels that it has once KubeRay has made it."""

    def __init__(self, labels: dict[str, str], namespace: str = NAMESPACE) -> None:
        self.labels, self.namespace = labels, namespace


def head_of(manifest: Manifest) -> Pod:
    labels = spec_of(manifest)["headGroupSpec"]["template"]["metadata"]["labels"]
    return Pod({**labels, "ray.io/is-ray-node": "yes", "ray.io/node-type": "head"})


def worker_of(manifest: Manifest) -> Pod:
    labels = spec_of(manifest)["workerGroupSpecs"][0]["template"]["metadata"]["labels"]
    return Pod({**labels, "ray.io/is-ray-node": "yes", "ray.io/node-type": "worker"})


def exporter() -> Pod:
    [found] = [each for each in read("exporter.yaml") if each["kind"] == "Deployment"]
    return Pod(found["spec"]["template"]["metadata"]["labels"])


SUBMITTER = Pod(JOB["spec"]["submitterPodTemplate"]["metadata"]["labels"])
OPERATOR = Pod({}, "kuberay-operator")
PROMETHEUS = Pod({}, "monitoring")
CLIENT = Pod({"app": "web-shop"})
OUTSIDER = Pod({"app.kubernetes.io/part-of": "equipoise"}, "elsewhere")


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions), "the plain policies know no other operator"
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def meets(peer: Manifest, pod: Pod) -> bool:
    if "ipBlock" in peer:
        return False
    spaces = peer.get("namespaceSelector")
    if spaces is None and pod.namespace != NAMESPACE:
        return False
    if spaces is not None and not selects(spaces, {"kubernetes.io/metadata.name": pod.namespace}):
        return False
    return "podSelector" not in peer or selects(peer["podSelector"], pod.labels)


def way(direction: str, pod: Pod, other: Pod, port: int) -> bool:
    """Whether one end's policies let a connection to a port pass, as the network plugin reads them."""
    kind, peers = direction.capitalize(), {"ingress": "from", "egress": "to"}[direction]
    selecting = [
        each["spec"]
        for each in read("network.yaml")
        if pod.namespace == each["metadata"]["namespace"] and selects(each["spec"]["podSelector"], pod.labels)
        if kind in each["spec"]["policyTypes"]
    ]
    return not selecting or any(
        any(meets(peer, other) for peer in rule[peers])
        and any(each["port"] <= port <= each.get("endPort", each["port"]) for each in rule["ports"])
        for policy in selecting
        for rule in policy.get(direction, [])
    )


def flows(source: Pod, target: Pod, port: int) -> bool:
    return way("egress", source, target, port) and way("ingress", target, source, port)


def test_the_submitter_reaches_the_dashboard_and_nothing_else() -> None:
    assert flows(SUBMITTER, head_of(JOB), 8265)
    for port in (8000, 8080, 6379, 10001):
        assert not flows(SUBMITTER, head_of(JOB), port)


def test_every_pod_of_the_code_is_under_the_default_deny() -> None:
    [deny] = [each for each in read("network.yaml") if each["metadata"]["name"] == "default-deny"]
    assert "ingress" not in deny["spec"]
    for pod in (
        SUBMITTER,
        *(end(each) for each in (JOB, SERVICE, JOBS_CLUSTER) for end in (head_of, worker_of)),
    ):
        assert selects(deny["spec"]["podSelector"], pod.labels)
        assert not flows(OUTSIDER, pod, 8265)


@pytest.mark.parametrize("manifest", [JOB, SERVICE, JOBS_CLUSTER], ids=lambda each: each["kind"])
def test_rays_pods_reach_each_other_but_not_haproxys_own_ports(manifest: Manifest) -> None:
    head, worker = head_of(manifest), worker_of(manifest)
    for source, target in ((head, worker), (worker, head), (worker, worker)):
        for port in (6379, 8000, 8080, 8265, 10002, 40000):
            assert flows(source, target, port)
    for port in (8404, 9101):
        for source in (head, worker, SUBMITTER, OPERATOR, PROMETHEUS, CLIENT, exporter()):
            assert not flows(source, worker, port)


@pytest.mark.parametrize(
    ("source", "port", "lets"),
    [
        (OPERATOR, 8265, True),
        (OPERATOR, 8000, True),
        (CLIENT, 8000, True),
        (CLIENT, 8265, False),
        (CLIENT, 8080, False),
        (PROMETHEUS, 8080, True),
        (PROMETHEUS, 8265, False),
        (OUTSIDER, 8000, False),
    ],
)
def test_who_reaches_a_service_of_the_code(source: Pod, port: int, lets: bool) -> None:
    assert flows(source, head_of(SERVICE), port) is lets
    assert flows(source, worker_of(SERVICE), port) is lets


def test_whoever_calls_without_a_label_meets_an_endpoint_that_asks_for_a_key() -> None:
    [classifier] = read("rayservice.classifier.yaml")
    [generation] = read("rayservice.generation.yaml")
    [jobs] = read("raycluster.gpu.yaml")
    for service in (classifier, SERVICE):
        [application] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
        assert application["args"]["serving"]["api_keys"]
        assert flows(CLIENT, worker_of(service), 8000)
    # Ray's own application takes no keys; a cluster for jobs or a run serves nobody.
    for other in (generation, jobs, JOB, JOBS_CLUSTER):
        assert not flows(CLIENT, head_of(other), 8000)
        assert not flows(CLIENT, worker_of(other), 8000)
    let_in = Pod({"app": "web-shop", "equipoise/generation-client": "yes"})
    assert flows(let_in, worker_of(generation), 8000)
    assert not flows(let_in, worker_of(generation), 8265)
    assert not flows(let_in, worker_of(jobs), 8000)
    assert flows(OPERATOR, worker_of(generation), 8000)


def test_the_exporter_reads_the_services_metrics_and_prometheus_reads_the_exporter() -> None:
    assert flows(exporter(), worker_of(SERVICE), 8080)
    assert flows(PROMETHEUS, exporter(), 9464)
    assert not flows(CLIENT, exporter(), 9464)


# Agreement


def chart_cluster(render: Render, find: Find, *values: str) -> Manifest:
    given = ["jobs.enabled=true", "jobs.autoscaler.enabled=true", *values]
    return find(render("default", given), "RayCluster")


def test_the_autoscaler_has_the_same_place_to_write_everywhere(render: Render, find: Find) -> None:
    """KubeRay adds the container; with a read-only root it needs a home and a /tmp that are its own."""
    [plain] = read("raycluster.gpu.yaml")
    seen = []
    for manifest in (JOBS_CLUSTER, plain, chart_cluster(render, find)):
        options = spec_of(manifest)["autoscalerOptions"]
        pod = spec_of(manifest)["headGroupSpec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert options["securityContext"]["readOnlyRootFilesystem"] is True
        assert options["securityContext"]["allowPrivilegeEscalation"] is False
        assert options["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert all("emptyDir" in volumes[mount["name"]] for mount in options["volumeMounts"])
        paths = [mount["mountPath"] for mount in options["volumeMounts"]]
        seen.append((options["version"], options["env"], options["resources"], paths))
    assert seen[0][1] == [{"name": "HOME", "value": "/tmp"}]  # noqa: S108
    assert seen[0][3] == ["/tmp"]  # noqa: S108
    assert seen[0] == seen[1] == seen[2]


def test_runs_go_to_the_shared_storage_wherever_there_is_some(render: Render, find: Find) -> None:
    """Else a run submitted to the cluster's Jobs API would lie on the head's own disk."""
    [plain] = read("raycluster.gpu.yaml")
    for manifest in (JOBS_CLUSTER, JOB, SERVICE, plain, chart_cluster(render, find)):
        groups = [spec_of(manifest)["headGroupSpec"], *spec_of(manifest)["workerGroupSpecs"]]
        for group in groups:
            pod = group["template"]["spec"]
            [container] = pod["containers"]
            env = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert env["EQUIPOISE_RUNS"] == "/equipoise/runs"
            [mount] = [each for each in container["volumeMounts"] if each["mountPath"] == "/equipoise"]
            [volume] = [each for each in pod["volumes"] if each["name"] == mount["name"]]
            assert "persistentVolumeClaim" in volume


def test_without_shared_storage_or_with_a_folder_of_ones_own_the_default_is_left(
    render: Render, find: Find
) -> None:
    def folders(manifest: Manifest) -> list[str]:
        [container] = spec_of(manifest)["headGroupSpec"]["template"]["spec"]["containers"]
        return [entry["value"] for entry in container["env"] if entry["name"] == "EQUIPOISE_RUNS"]

    alone = CLUSTER.model_copy(update={"storage": CLUSTER.storage.model_copy(update={"claim": None})})
    assert folders(ray_cluster("alone", alone)) == []
    assert folders(chart_cluster(render, find, 'storage.kind="s3"')) == []
    assert folders(chart_cluster(render, find, 'env={"EQUIPOISE_RUNS": "/equipoise/mine"}')) == [
        "/equipoise/mine"
    ]
