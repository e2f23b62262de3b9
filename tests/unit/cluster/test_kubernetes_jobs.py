"""Runs as RayJobs: what is created, how it is read, and every way it can be refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.cluster.job_manifests import job_manifests, run_folder
from equipoise.cluster.job_status import read_job
from equipoise.cluster.jobs import Job, next_id
from equipoise.cluster.kubernetes_jobs import KubernetesJobs
from equipoise.cluster.names import submission_id
from equipoise.cluster.submission import submit_to_kubernetes
from equipoise.config import RunConfig, validate_config
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


# What is created


def test_a_run_is_a_config_map_and_a_job_that_owns_it(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    config = sample_run()
    server.put("nodes", "", node("a"))
    notes = Notes()
    found = submit_to_kubernetes(config, jobs, notes)
    assert found.created == [f"ConfigMap research/{found.id}", f"RayJob research/{found.id}"]
    held = jobs.api.get("ConfigMap", found.id)
    job = jobs.api.get("RayJob", found.id)
    assert held is not None
    assert job is not None
    [owner] = held["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("RayJob", job["metadata"]["uid"])
    # The pods read the very run that was given.
    given = validate_config(RunConfig, yaml.safe_load(held["data"]["run.yaml"]), where="run.yaml")
    assert submission_id(given) == found.id
    assert given.run_folder == "/mnt/equipoise/runs/topics"
    assert job["spec"]["entrypoint"].endswith(f"--out {given.run_folder}")
    assert any("an hour by the prices of" in line for line in notes.lines)


def test_submitting_again_joins_what_waits_runs_or_has_succeeded(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    config = sample_run()
    server.put("nodes", "", node("a"))
    first = submit_to_kubernetes(config, jobs, Notes())
    for phase, ray in (("", ""), ("Initializing", ""), ("Running", "RUNNING"), ("Complete", "SUCCEEDED")):
        server.set_status("rayjobs", "research", first.id, jobDeploymentStatus=phase, jobStatus=ray)
        again = submit_to_kubernetes(config, jobs, Notes())
        assert (again.id, again.joined, again.created) == (first.id, True, [])
    assert len(jobs.list_jobs()) == 1


def test_after_a_failure_comes_the_next_attempt_on_the_same_run_folder(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    config = sample_run()
    server.put("nodes", "", node("a"))
    first = submit_to_kubernetes(config, jobs, Notes())
    server.set_status("rayjobs", "research", first.id, jobDeploymentStatus="Failed", jobStatus="FAILED")
    second = submit_to_kubernetes(config, jobs, Notes())
    assert second.id == f"{first.id}-2"
    assert next_id(jobs, first.id)[0] == second.id
    entrypoints = {job["spec"]["entrypoint"] for job in jobs.api.list_objects("RayJob", labels="")}
    assert len(entrypoints) == 1


def test_cancelling_removes_everything_it_created(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    found = submit_to_kubernetes(sample_run(), jobs, Notes())
    assert jobs.cancel(found.id) == [f"RayJob research/{found.id}", f"ConfigMap research/{found.id}"]
    assert jobs.find(found.id) is None
    assert jobs.cancel(found.id) == []
    assert [key for key in server.objects if key[0] != "nodes"] == []


@pytest.mark.parametrize("field", ["train", "test"])
def test_files_of_this_machine_are_refused(
    field: str, tmp_path: Path, sample_run: Callable[..., RunConfig]
) -> None:
    data = {"train": "s3://data/train.csv", "test": "/mnt/equipoise/test.csv"}
    fine = sample_run(data=data)
    assert len(job_manifests(fine, "a")) == 2
    wrong = sample_run(data={**data, field: str(tmp_path / "rows.csv")})
    with pytest.raises(InputError, match=rf"data\.{field}: is a file of this machine.*/mnt/equipoise"):
        job_manifests(wrong, "a")


def test_a_price_book_travels_with_the_run(tmp_path: Path, sample_run: Callable[..., RunConfig]) -> None:
    book = tmp_path / "mine.yaml"
    book.write_text("engineer: {usd_per_hour: 100}\n")
    config_map, _ = job_manifests(sample_run(cost={"prices": str(book)}), "a")
    assert config_map["data"]["prices.yaml"] == book.read_text()
    assert yaml.safe_load(config_map["data"]["run.yaml"])["cost"]["prices"] == "/etc/equipoise/prices.yaml"


def test_workers_without_a_claim_would_not_see_the_run_folder(sample_run: Callable[..., RunConfig]) -> None:
    with pytest.raises(InputError, match=r"cluster\.storage\.claim: workers and head share the run folder"):
        job_manifests(sample_run(cluster={"image": "x", "worker_groups": [{}]}), "a")
    assert job_manifests(sample_run(cluster={"image": "x"}), "a")


@pytest.mark.parametrize("output", ["runs/demo", "/home/me/runs", "s3://bucket/run", "/mnt/equipoise/../etc"])
def test_a_run_folder_that_pods_cannot_write_is_refused(
    output: str, sample_run: Callable[..., RunConfig]
) -> None:
    with pytest.raises(InputError, match="output: is no folder that pods can write to"):
        run_folder(sample_run(output=output))


# What it is doing


@pytest.mark.parametrize(
    ("phase", "ray", "state"),
    [
        ("", "", "starting"),
        ("Initializing", "", "starting"),
        ("Running", "PENDING", "starting"),
        ("Running", "RUNNING", "running"),
        ("Retrying", "", "starting"),
        ("Suspended", "", "suspended"),
        ("Complete", "SUCCEEDED", "succeeded"),
        ("Complete", "FAILED", "failed"),
        ("Complete", "STOPPED", "stopped"),
        ("Failed", "FAILED", "failed"),
        ("Failed", "", "failed"),
        ("ValidationFailed", "", "failed"),
    ],
)
def test_every_state_that_kuberay_writes_is_understood(phase: str, ray: str, state: str) -> None:
    manifest = {
        "metadata": {"name": "a"},
        "spec": {},
        "status": {"jobDeploymentStatus": phase, "jobStatus": ray},
    }
    assert read_job(manifest).state == state


def test_the_exit_status_of_the_run_is_read_from_the_message() -> None:
    status = {
        "jobDeploymentStatus": "Failed",
        "jobStatus": "FAILED",
        "reason": "AppFailed",
        "message": "Job entrypoint command failed with exit code 3, last available logs",
    }
    found = read_job({"metadata": {"name": "a"}, "status": status})
    assert found.exit_code == 3
    assert found.message.startswith("AppFailed: Job entrypoint")


@pytest.mark.parametrize("versions", [["v1beta2"], ["v1beta1"], ["v1beta2", "v1beta1"], ["v1"]])
def test_a_job_that_kueue_holds_says_so_in_whichever_version_is_served(
    versions: list[str], jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    for version in versions:
        server.groups[f"kueue.x-k8s.io/{version}"] = ["Workload"]
    found = submit_to_kubernetes(sample_run(cluster={"image": "x", "queue": "team"}), jobs, Notes())
    job = jobs.api.get("RayJob", found.id)
    assert job is not None
    server.put(
        "workloads",
        "research",
        {
            "metadata": {"name": "w", "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}},
            "status": {
                "conditions": [
                    {"type": "QuotaReserved", "status": "False", "message": "insufficient quota for cpu"}
                ]
            },
        },
    )
    seen = jobs.find(found.id)
    assert seen is not None
    assert seen.state == "suspended"
    assert seen.message == "suspended by Kueue until queue team admits it: insufficient quota for cpu"
    listed = [path for _, path in server.requests if "/workloads" in path]
    assert all(path.startswith(f"/apis/kueue.x-k8s.io/{versions[0]}/") for path in listed)


def test_a_job_that_waits_for_a_queue_without_kueue_says_for_which(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    found = submit_to_kubernetes(sample_run(cluster={"image": "x", "queue": "team"}), jobs, Notes())
    seen = jobs.find(found.id)
    assert seen is not None
    assert seen.message == "suspended by Kueue until queue team admits it"


def pod(name: str, job: str, **status: Any) -> Manifest:
    return {"metadata": {"name": name, "labels": {"app.kubernetes.io/instance": job}}, "status": status}


def test_why_a_pod_does_not_start_comes_from_its_status_and_events(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    job = submit_to_kubernetes(sample_run(), jobs, Notes()).id
    unschedulable = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient cpu.",
        }
    ]
    server.put("pods", "research", pod("head", job, phase="Pending", conditions=unschedulable))
    server.put("pods", "research", pod("worker", job, phase="Pending"))
    for at, message in (
        ("2026-01-01T00:00:01Z", "old"),
        ("2026-01-01T00:00:09Z", 'claim "runs" not found'),
    ):
        event = {
            "metadata": {"name": f"e{at[-2]}"},
            "type": "Warning",
            "reason": "FailedMount",
            "message": message,
            "lastTimestamp": at,
            "involvedObject": {"name": "worker"},
        }
        server.put("events", "research", event)
    found = jobs.find(job)
    assert found is not None
    assert found.state == "starting"
    assert "pod head: Unschedulable: 0/3 nodes are available: 3 Insufficient cpu." in found.message
    assert 'pod worker: FailedMount: claim "runs" not found' in found.message


def test_an_image_that_cannot_be_pulled_is_said(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    job = submit_to_kubernetes(sample_run(), jobs, Notes()).id
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}
    server.put("pods", "research", pod("head", job, phase="Pending", containerStatuses=[waiting]))
    found = jobs.find(job)
    assert found is not None
    assert found.state == "starting"
    assert found.message == "pod head: ImagePullBackOff: Back-off pulling image"
    waiting["state"]["waiting"] = {"reason": "InvalidImageName", "message": 'invalid reference "X Y"'}
    server.put("pods", "research", pod("head", job, phase="Pending", containerStatuses=[waiting]))
    found = jobs.find(job)
    assert found is not None
    assert found.state == "failed"
    assert "it can never start: InvalidImageName" in found.message
    assert found.never_starts


def test_an_image_that_cannot_be_pulled_is_waited_for_a_while_and_given_up(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.cluster.image_pulls.GIVE_UP_S", 0.3)
    server.put("nodes", "", node("a"))
    job = submit_to_kubernetes(sample_run(), jobs, Notes()).id

    def seen(**waiting: str) -> Job:
        state = [{"state": {"waiting": waiting}}] if waiting else []
        server.put("pods", "research", pod("head", job, phase="Pending", containerStatuses=state))
        found = jobs.find(job)
        assert found is not None
        return found

    assert seen(reason="ErrImagePull", message="not found").state == "starting"
    time.sleep(0.35)
    # It was pulled in between: the time starts anew.
    assert seen().state == "starting"
    assert seen(reason="ErrImagePull", message="not found").state == "starting"
    time.sleep(0.35)
    found = seen(reason="ImagePullBackOff", message="manifest unknown")
    assert (found.state, found.never_starts) == ("failed", True)
    assert found.message.endswith("s: ImagePullBackOff: manifest unknown")
    # The job itself still waits, and is joined by whoever submits it again.
    assert next_id(jobs, job)[0] == job


def test_pods_that_cannot_even_be_created_are_explained_by_their_cluster(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    job = submit_to_kubernetes(sample_run(), jobs, Notes()).id
    server.set_status("rayjobs", "research", job, jobDeploymentStatus="Initializing", rayClusterName="c1")
    event = {
        "metadata": {"name": "e"},
        "type": "Warning",
        "reason": "FailedToCreateHeadPod",
        "message": "exceeded quota: team",
        "involvedObject": {"name": "c1"},
    }
    server.put("events", "research", event)
    found = jobs.find(job)
    assert found is not None
    assert found.message == "FailedToCreateHeadPod: exceeded quota: team"


def test_workers_that_the_quota_keeps_from_being_created_are_said_while_the_head_is_up(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    job = submit_to_kubernetes(sample_run(), jobs, Notes()).id
    server.set_status("rayjobs", "research", job, jobDeploymentStatus="Initializing", rayClusterName="c1")
    ready = [{"ready": True, "state": {"running": {}}}]
    head = pod("head", job, phase="Running", containerStatuses=ready)
    head["metadata"]["creationTimestamp"] = "2026-01-01T00:00:05Z"
    server.put("pods", "research", head)

    def message(at: str) -> str:
        event = {
            "metadata": {"name": "e"},
            "type": "Warning",
            "reason": "FailedToCreateWorkerPod",
            "message": "exceeded quota: team",
            "eventTime": at,
            "involvedObject": {"name": "c1"},
        }
        server.put("events", "research", event)
        found = jobs.find(job)
        assert found is not None
        return found.message

    assert message("2026-01-01T00:00:05.300000Z") == "FailedToCreateWorkerPod: exceeded quota: team"
    # What is older than the newest pod has been overcome.
    assert message("2026-01-01T00:00:04.900000Z") == ""


# Its log


def submitter(job: str, phase: str = "Running") -> Manifest:
    labels = {"app.kubernetes.io/instance": job, "app.kubernetes.io/component": "submitter"}
    return {"metadata": {"name": f"{job}-x", "labels": labels}, "status": {"phase": phase}}


def test_a_log_goes_on_where_it_broke_off_without_a_line_twice(jobs: KubernetesJobs, server: Any) -> None:
    server.put("pods", "research", submitter("a"))
    lines = [
        (f"2026-01-01T00:00:0{second}.{part}Z", f"{second}.{part}") for second in range(3) for part in "159"
    ]
    server.logs["a-x"] = [*lines, ("2026-01-01T00:00:09.0Z", "END")]
    server.break_log_after = [2, 5]
    cursor, found, breaks = "", [], 0
    while "END\n" not in found:
        try:
            for text, reached in jobs.tail("a", cursor):
                found.append(text)
                cursor = reached
        except ServiceError:
            breaks += 1
    assert breaks == 2
    assert [text.strip() for text in found] == [*(text for _, text in lines), "END"]
    assert jobs.log("a").splitlines()[-1] == "END"


def test_before_the_submitter_runs_there_is_no_log(jobs: KubernetesJobs, server: Any) -> None:
    server.put("pods", "research", submitter("a", "Pending"))
    with pytest.raises(ServiceError, match="no log yet"):
        next(jobs.tail("a", ""))


def test_two_that_submit_the_same_run_at_once_make_one_job(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig]
) -> None:
    server.put("nodes", "", node("a"))
    config = sample_run()
    threads = [threading.Thread(target=submit_to_kubernetes, args=(config, jobs, Notes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len([key for key in server.objects if key[0] == "rayjobs"]) == 1
