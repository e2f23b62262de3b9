"""What is refused, or said, before a run is created on Kubernetes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from equipoise.cluster.jobs import Job
from equipoise.cluster.kubernetes_jobs import KubernetesJobs
from equipoise.cluster.names import submission_id
from equipoise.cluster.submission import submit_to_kubernetes
from equipoise.config import RunConfig
from equipoise.errors import InputError, ServiceError

Manifest = dict[str, Any]


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def state(self, job: Job) -> None:
        self.lines.append(f"{job.state}: {job.message}")

    def log(self, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str) -> None:
        self.lines.append(text)


def node(name: str, cpu: str = "16", memory: str = "64Gi", **spec: Any) -> Manifest:
    return {
        "metadata": {"name": name, "labels": spec.pop("labels", {})},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": memory}},
    }


def test_without_kuberay_nothing_is_created(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.groups.clear()
    with pytest.raises(InputError, match=r"KubeRay is missing.*helm install kuberay-operator"):
        submit_to_kubernetes(sample_run(), jobs, Notes())
    assert not any(method == "PATCH" for method, _ in server.requests)


def test_pods_that_no_node_can_ever_take_are_refused(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("small", cpu="4", memory="16Gi"))
    cluster = {
        "image": "x",
        "storage": {"claim": "runs"},
        "worker_groups": [{"name": "big", "cpus": 32, "memory_gib": 8}],
    }
    with pytest.raises(InputError, match=r"big: each pod asks for 32 cores.*offers 4 cores, 16\.0 GiB"):
        submit_to_kubernetes(sample_run(cluster=cluster), jobs, Notes())
    assert not any(method == "PATCH" for method, _ in server.requests)


WIDE = {
    "image": "x",
    "storage": {"claim": "runs"},
    "worker_groups": [{"name": "many", "cpus": 8, "min_workers": 50, "max_workers": 50}],
}


def test_more_workers_than_all_nodes_hold_are_refused(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("only", cpu="16"))
    with pytest.raises(InputError, match=r"many: 50 pods of 8 cores, 16 GiB each .* hold 2 of them"):
        submit_to_kubernetes(sample_run(cluster=WIDE), jobs, Notes())
    assert not any(method == "PATCH" for method, _ in server.requests)


def test_more_workers_than_all_nodes_hold_are_said_where_nodes_come_on_demand(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("only", cpu="16"))
    status = {"metadata": {"name": "cluster-autoscaler-status"}}
    server.put("configmaps", "kube-system", status)
    notes = Notes()
    assert submit_to_kubernetes(sample_run(cluster=WIDE), jobs, notes).created
    assert any("needs nodes that are not there yet: many: 50 pods" in line for line in notes.lines)


def test_where_nodes_come_on_demand_it_is_said_and_submitted(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("small", cpu="4"))
    server.groups["karpenter.sh/v1"] = ["NodePool"]
    cluster = {"image": "x", "storage": {"claim": "runs"}, "worker_groups": [{"name": "big", "cpus": 32}]}
    notes = Notes()
    submit_to_kubernetes(sample_run(cluster=cluster), jobs, notes)
    assert any("needs nodes that are not there yet: big" in line for line in notes.lines)


def test_more_than_the_quota_as_such_is_refused_and_more_than_is_left_is_said(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    quota = {"metadata": {"name": "team"}, "status": {"hard": {"requests.cpu": "8"}, "used": {}}}
    server.put("resourcequotas", "research", quota)
    with pytest.raises(InputError, match=r"quota team: requests\.cpu is 8, and 18 are asked for"):
        submit_to_kubernetes(
            sample_run(cluster={"image": "x", "storage": {"claim": "runs"}, "worker_groups": [{"cpus": 16}]}),
            jobs,
            Notes(),
        )
    quota["status"]["used"] = {"requests.cpu": "7"}
    server.put("resourcequotas", "research", quota)
    notes = Notes()
    submit_to_kubernetes(sample_run(), jobs, notes)
    assert any("quota team: requests.cpu has 1 left of 8" in line for line in notes.lines)


def scoped(name: str, operator: str, *values: str) -> Manifest:
    expression = {"scopeName": name, "operator": operator, **({"values": list(values)} if values else {})}
    status = {"hard": {"requests.cpu": "1"}, "used": {"requests.cpu": "0"}}
    spec = {"scopeSelector": {"matchExpressions": [expression]}}
    return {"metadata": {"name": "urgent"}, "spec": spec, "status": status}


def test_a_quota_of_another_priority_class_refuses_nothing(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    server.put("resourcequotas", "research", scoped("PriorityClass", "In", "urgent"))
    notes = Notes()
    assert submit_to_kubernetes(sample_run(), jobs, notes).created
    assert not any("quota" in line for line in notes.lines)


def test_a_quota_of_the_priority_class_that_pods_get_by_default_counts(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    server.put("resourcequotas", "research", scoped("PriorityClass", "In", "urgent"))
    default = {"metadata": {"name": "urgent"}, "value": 10, "globalDefault": True}
    server.put("priorityclasses", "", default)
    with pytest.raises(InputError, match=r"quota urgent: requests\.cpu is 1"):
        submit_to_kubernetes(sample_run(), jobs, Notes())
    # Who may not look is not refused by a guess.
    server.refuse("GET", "/priorityclasses", 403, 'priorityclasses is forbidden: User "x" cannot list')
    assert submit_to_kubernetes(sample_run(), jobs, Notes()).created


def test_without_the_right_to_list_nodes_it_is_submitted(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.refuse("GET", "/nodes", 403, 'nodes is forbidden: User "x" cannot list')
    notes = Notes()
    assert submit_to_kubernetes(sample_run(), jobs, notes).created
    assert any("whether the pods fit is not known" in line for line in notes.lines)


def test_what_the_server_refuses_in_its_check_leaves_nothing_behind(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    server.refuse("PATCH", "rayjobs", 403, "pods violate PodSecurity", dry_run=True)
    with pytest.raises(InputError, match="PodSecurity"):
        submit_to_kubernetes(sample_run(), jobs, Notes())
    assert [key for key in server.objects if key[0] != "nodes"] == []


def test_a_job_refused_after_its_config_map_names_what_is_left_and_what_removes_it(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    config = sample_run()
    job_id = submission_id(config)
    server.refuse("PATCH", "rayjobs", 403, "exceeded quota: team", dry_run=False)
    with pytest.raises(ServiceError) as found:
        submit_to_kubernetes(config, jobs, Notes())
    assert f"ConfigMap research/{job_id} is there" in str(found.value)
    assert f"`equipoise cancel {job_id} --on kubernetes --namespace research" in str(found.value)
    assert jobs.cancel(job_id) == [f"ConfigMap research/{job_id}"]
