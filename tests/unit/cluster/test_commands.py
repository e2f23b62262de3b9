"""The commands as their user calls them, against the small API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise import hardware
from equipoise.config import load_config
from equipoise.costs.estimate import Range, RunEstimate, RunSize
from equipoise.pipeline.kept_estimates import keep_estimate

Command = Callable[..., "subprocess.CompletedProcess[str]"]

RUN = {
    "name": "topics",
    "data": {"train": "sample://reuters-r8/train", "test": "sample://reuters-r8/test"},
    "model": {"teacher": "sample://all-minilm-l6-v2"},
    "cluster": {"image": "registry.example/equipoise:0.1", "storage": {"claim": "runs"}},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(RUN))
    return path


@pytest.fixture
def environment(kubeconfig: Path, tmp_path: Path, server: Any) -> dict[str, str]:
    allocatable = {"cpu": "64", "memory": "256Gi"}
    server.put("nodes", "", {"metadata": {"name": "n"}, "spec": {}, "status": {"allocatable": allocatable}})
    return {**os.environ, "KUBECONFIG": str(kubeconfig), "XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def equipoise(environment: dict[str, str], tmp_path: Path) -> Command:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "equipoise.cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env=environment,
            check=False,
        )

    return call


def operate(server: Any, *statuses: dict[str, Any], log: tuple[str, ...] = ()) -> threading.Thread:
    """Do for the first RayJob that appears what KubeRay would: statuses one after the other, and a log."""

    def run() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            names = [name for plural, _, name in list(server.objects) if plural == "rayjobs"]
            if names:
                break
            time.sleep(0.02)
        labels = {"app.kubernetes.io/instance": names[0], "app.kubernetes.io/component": "submitter"}
        server.logs["submitter"] = [
            (f"2026-01-01T00:00:{second:02d}Z", line) for second, line in enumerate((*log, "END"))
        ]
        pod = {"metadata": {"name": "submitter", "labels": labels}, "status": {"phase": "Running"}}
        server.put("pods", "research", pod)
        for status in statuses:
            server.set_status("rayjobs", "research", names[0], **status)
            time.sleep(0.3)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def test_a_run_is_followed_to_its_end_and_its_place_named(
    equipoise: Command, config: Path, server: Any
) -> None:
    operate(server, RUNNING, DONE, log=("1/6 data", "6/6 report"))
    found = equipoise("submit", "-f", str(config))
    assert found.returncode == 0, found.stderr
    assert "an hour by the prices of" in found.stdout
    assert "created RayJob research/topics-" in found.stdout
    assert "--on kubernetes --namespace research removes it" in found.stdout
    assert "1/6 data\n6/6 report\n" in found.stdout
    # No head pod is there any more: the claim keeps what could not be fetched.
    assert "not fetched" in found.stdout
    assert "results in /mnt/equipoise/runs/topics of claim runs" in found.stdout


def test_what_was_estimated_of_a_run_is_shown_before_it_is_submitted(
    equipoise: Command,
    environment: dict[str, str],
    config: Path,
    server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    command = ("submit", "-f", str(config), "--detach", "--image", "registry.example/other:0.1")
    found = equipoise(*command)
    assert f"`equipoise estimate -f {config}` tells" in found.stdout.partition("created")[0]
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
    usd = Range(value=0.5, low=0.25, high=1.0)
    size = RunSize(
        teacher_rows=1,
        teacher_depth=6,
        output_rows=1,
        student_rows=1,
        student_depths=(1,),
        candidates=1,
        judged_rows=1,
        workers=1,
        cores=1,
    )
    told = RunEstimate(
        basis="timed steps",
        runs=0,
        fingerprint=hardware.fingerprint(hardware.describe_hardware()),
        size=size,
        seconds={},
        total_s=Range(value=600, low=540, high=3900),
        training_usd=usd,
        search_usd=usd,
        node_usd=usd,
    )
    keep_estimate(load_config(config), told)
    found = equipoise(*command)
    assert "10:00 (9:00 to 1:05:00), $0.5000 ($0.2500 to $1.0000)" in found.stdout


def test_a_run_that_fails_ends_the_command_with_its_own_status_and_line(
    equipoise: Command, config: Path, server: Any
) -> None:
    message = "Job entrypoint command failed with exit code 3, last available logs: …"
    failed = {
        "jobDeploymentStatus": "Failed",
        "jobStatus": "FAILED",
        "reason": "AppFailed",
        "message": message,
    }
    operate(server, RUNNING, failed, log=("equipoise: constraints.max_mb: no candidate meets it",))
    found = equipoise("submit", "-f", str(config))
    assert found.returncode == 3
    last = found.stderr.splitlines()[-1]
    assert "no candidate meets it" in last
    assert "equipoise logs topics-" in last
    assert "RayJob research/topics-" in last
    assert "`equipoise cancel topics-" in last


def test_a_run_whose_image_has_no_name_that_can_be_ends_with_2_and_names_what_is_there(
    equipoise: Command, config: Path, server: Any
) -> None:
    job = json.loads(equipoise("submit", "-f", str(config), "--detach", "--json").stdout)["id"]
    waiting = {"state": {"waiting": {"reason": "InvalidImageName", "message": 'invalid reference "X Y"'}}}
    metadata = {"name": "head", "labels": {"app.kubernetes.io/instance": job}}
    status = {"phase": "Pending", "containerStatuses": [waiting]}
    server.put("pods", "research", {"metadata": metadata, "status": status})
    found = equipoise("submit", "-f", str(config))
    assert found.returncode == 2
    [line] = found.stderr.splitlines()
    assert 'it can never start: InvalidImageName: invalid reference "X Y"' in line
    assert f"RayJob research/{job}, ConfigMap research/{job} are there" in line
    assert f"`equipoise cancel {job} --on kubernetes --namespace research` removes it" in line
    assert "equipoise logs" not in line


def test_json_stands_alone_on_standard_output(equipoise: Command, config: Path, server: Any) -> None:
    found = equipoise("submit", "-f", str(config), "--detach", "--json")
    assert found.returncode == 0, found.stderr
    outcome = json.loads(found.stdout)
    assert outcome["joined"] is False
    again = json.loads(equipoise("submit", "-f", str(config), "--detach", "--json").stdout)
    assert (again["id"], again["joined"]) == (outcome["id"], True)
    [job] = json.loads(equipoise("jobs", "--json").stdout)
    assert (job["id"], job["state"]) == (outcome["id"], "starting")
    removed = json.loads(equipoise("cancel", outcome["id"], "--json").stdout)["removed"]
    assert removed == [f"RayJob research/{outcome['id']}", f"ConfigMap research/{outcome['id']}"]
    assert json.loads(equipoise("jobs", "--json").stdout) == []


def test_the_log_of_a_job_can_be_read_afterwards(equipoise: Command, config: Path, server: Any) -> None:
    thread = operate(server, RUNNING, DONE, log=("1/6 data",))
    job = json.loads(equipoise("submit", "-f", str(config), "--detach", "--json").stdout)["id"]
    thread.join(timeout=60)
    assert equipoise("logs", job).stdout == "1/6 data\nEND\n"
    unknown = equipoise("logs", "nothing")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no such job" in unknown.stderr


def test_ctrl_c_leaves_the_job_and_names_the_next_commands(
    environment: dict[str, str], config: Path, server: Any, tmp_path: Path
) -> None:
    thread = operate(server, RUNNING, log=("1/6 data",))
    command = [sys.executable, "-m", "equipoise.cli.main", "submit", "-f", str(config)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=tmp_path, env=environment, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "running" in line:
                thread.join(timeout=60)
                # The log is still open, as that of a job at work is.
                server.logs["submitter"].pop()
                process.send_signal(signal.SIGINT)
                pressed = time.monotonic()
                break
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - pressed < 10
    assert "the job goes on" in errors
    assert errors.count("\n") == 1
    assert any(plural == "rayjobs" for plural, _, _ in server.objects)


def test_a_bundle_is_deployed_looked_at_and_removed(equipoise: Command, config: Path, server: Any) -> None:
    def serve() -> None:
        deadline = time.monotonic() + 60
        while ("rayservices", "research", "topics") not in server.objects and time.monotonic() < deadline:
            time.sleep(0.02)
        ready = [{"type": "Ready", "status": "True"}]
        server.set_status("rayservices", "research", "topics", conditions=ready, observedGeneration=1)

    threading.Thread(target=serve, daemon=True).start()
    location = "/mnt/equipoise/runs/topics"
    found = equipoise("deploy", location, "-f", str(config))
    assert found.returncode == 0, found.stderr
    assert "topics ready at http://topics-serve-svc.research:8000" in found.stdout
    [service] = json.loads(equipoise("status", "--json").stdout)
    assert (service["name"], service["phase"], service["bundle"]) == ("topics", "ready", location)
    assert "removed RayService research/topics" in equipoise("undeploy", "topics").stdout
    assert equipoise("status", "topics").returncode == 2


def test_dry_runs_name_the_namespace_where_one_was_given(
    equipoise: Command, config: Path, server: Any
) -> None:
    for command in (["submit"], ["deploy", "/mnt/equipoise/runs/topics"]):
        for given, namespace in ((["-n", "research"], "research"), ([], None)):
            found = equipoise(*command, "-f", str(config), "--dry-run", *given)
            assert found.returncode == 0, found.stderr
            objects = list(yaml.safe_load_all(found.stdout))
            assert {each["metadata"].get("namespace") for each in objects} == {namespace}
    assert not server.requests


def test_a_deployment_that_does_not_come_up_in_time_says_why(
    equipoise: Command, config: Path, server: Any
) -> None:
    labels = {"app.kubernetes.io/instance": "topics"}
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}}}
    status = {"phase": "Pending", "containerStatuses": [waiting]}
    server.put("pods", "research", {"metadata": {"name": "head", "labels": labels}, "status": status})
    found = equipoise("deploy", "/mnt/equipoise/runs/topics", "-f", str(config), "--wait-s", "1")
    assert found.returncode == 6
    assert "ImagePullBackOff: Back-off pulling" in found.stderr
    assert "equipoise undeploy topics" in found.stderr


def test_a_context_that_is_not_there(equipoise: Command, config: Path, server: Any) -> None:
    found = equipoise("submit", "-f", str(config), "--context", "prod")
    assert (found.returncode, found.stdout) == (2, "")
    assert "choose one of: stranger, test" in found.stderr
    assert not server.requests
