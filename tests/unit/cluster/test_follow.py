"""A job followed over a connection that breaks, against a real server on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from equipoise.cluster.follow import follow
from equipoise.cluster.jobs import Job, failure
from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.cluster.kubernetes_jobs import KubernetesJobs
from equipoise.errors import (
    ConfigError,
    EquipoiseError,
    InfeasibleError,
    InputError,
    OverBudgetError,
    ServiceError,
)


class Screen:
    def __init__(self) -> None:
        self.states: list[str] = []
        self.text = ""
        self.notes: list[str] = []

    def state(self, job: Job) -> None:
        self.states.append(job.state)

    def log(self, text: str) -> None:
        self.text += text

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def jobs(api: KubernetesApi, server: Any) -> KubernetesJobs:
    labels = {"app.kubernetes.io/managed-by": "equipoise"}
    server.put("rayjobs", "research", {"metadata": {"name": "a", "labels": labels}, "spec": {}})
    submitter = {"app.kubernetes.io/instance": "a", "app.kubernetes.io/component": "submitter"}
    server.put(
        "pods", "research", {"metadata": {"name": "a-x", "labels": submitter}, "status": {"phase": "Running"}}
    )
    return KubernetesJobs(api)


def script(*steps: tuple[float | Callable[[], bool], Any]) -> threading.Thread:
    """Do things one after the other, each after so many seconds or once something is so."""

    def run() -> None:
        for wait, step in steps:
            if isinstance(wait, float):
                time.sleep(wait)
            else:
                while not wait():
                    time.sleep(0.02)
            step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_states_and_log_are_shown_to_the_end(jobs: KubernetesJobs, server: Any) -> None:
    server.logs["a-x"] = []
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    done = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    screen = Screen()
    script(
        (
            lambda: "starting" in screen.states,
            lambda: server.set_status("rayjobs", "research", "a", **running),
        ),
        (
            lambda: "running" in screen.states,
            lambda: server.logs["a-x"].append(("2026-01-01T00:00:01Z", "1/6 data")),
        ),
        (lambda: "data" in screen.text, lambda: server.logs["a-x"].append(("2026-01-01T00:00:02Z", "END"))),
        (lambda: "END" in screen.text, lambda: server.set_status("rayjobs", "research", "a", **done)),
    )
    job = follow(jobs, "a", screen, poll_s=0.05)
    assert job.state == "succeeded"
    assert screen.states == ["starting", "running", "succeeded"]
    assert screen.text == "1/6 data\nEND\n"


def test_a_server_that_goes_and_comes_back_costs_nothing_of_the_log(
    jobs: KubernetesJobs, server: Any
) -> None:
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    done = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    server.set_status("rayjobs", "research", "a", **running)
    server.logs["a-x"] = [("2026-01-01T00:00:01Z", "before")]
    server.break_log_after = [1]
    screen = Screen()
    after = [("2026-01-01T00:00:02Z", "after"), ("2026-01-01T00:00:03Z", "END")]
    script(
        (lambda: "before" in screen.text, server.stop),
        (lambda: bool(screen.notes), server.start),
        (0.2, lambda: server.logs["a-x"].extend(after)),
        (lambda: "END" in screen.text, lambda: server.set_status("rayjobs", "research", "a", **done)),
    )
    assert follow(jobs, "a", screen, poll_s=0.05).state == "succeeded"
    assert screen.text == "before\nafter\nEND\n"
    assert screen.notes == [f"no contact to {jobs.where}; trying again"]


def test_without_contact_for_long_it_is_given_up_and_the_job_goes_on(
    jobs: KubernetesJobs, server: Any
) -> None:
    server.stop()
    with pytest.raises(ServiceError, match=r"the job goes on; equipoise logs a --on kubernetes") as found:
        follow(jobs, "a", Screen(), poll_s=0.05, patience_s=0.3)
    assert found.value.exit_status == 6
    assert f"`equipoise cancel a {jobs.options}` removes it" in str(found.value)


def test_credentials_that_expire_meanwhile_leave_a_line_that_names_the_job(
    jobs: KubernetesJobs, server: Any
) -> None:
    server.refuse("GET", "rayjobs", 401, "Unauthorized")
    with pytest.raises(ConfigError, match="may have expired") as found:
        follow(jobs, "a", Screen(), poll_s=0.05)
    assert f"job a is there; `equipoise cancel a {jobs.options}` removes it" in str(found.value)


def test_a_job_that_is_removed_meanwhile_is_said(jobs: KubernetesJobs, server: Any) -> None:
    script((0.2, lambda: server.objects.pop(("rayjobs", "research", "a"))))
    with pytest.raises(InputError, match="no such job, or it was removed"):
        follow(jobs, "a", Screen(), poll_s=0.05)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(1, EquipoiseError), (2, InputError), (3, InfeasibleError), (4, OverBudgetError), (6, ServiceError)],
)
def test_a_failed_job_ends_the_command_as_it_ended_itself(code: int, kind: type[EquipoiseError]) -> None:
    job = Job("a", "failed", "Job entrypoint command failed", exit_code=code)
    found = failure(job, "equipoise: no candidate meets the constraints", "equipoise logs a")
    assert type(found) is kind
    assert found.exit_status == code
    assert "no candidate meets the constraints" in str(found)


def test_a_job_that_died_without_an_exit_status_is_worth_a_retry() -> None:
    found = failure(Job("a", "failed", "the node was preempted"), "2/6 teacher", "equipoise logs a")
    assert found.exit_status == 6
    assert "the node was preempted: 2/6 teacher" in str(found)
