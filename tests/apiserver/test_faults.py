"""A server of our own that goes away, forgets a user, or knows KubeRay not at all or an older one."""

from __future__ import annotations

import copy
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from equipoise.cluster.follow import follow
from equipoise.cluster.job_manifests import job_manifests
from equipoise.cluster.jobs import Job
from equipoise.cluster.kubeconfig import connect
from equipoise.cluster.kubernetes_jobs import KubernetesJobs
from equipoise.cluster.names import submission_id
from equipoise.cluster.services import Services, service_manifest
from equipoise.config import load_config
from equipoise.config.serving import ServingConfig
from equipoise.errors import ConfigError, InputError

Manifest = dict[str, Any]
Command = Callable[..., subprocess.CompletedProcess[str]]

# A server starts up to four times here, and each time anew.
pytestmark = pytest.mark.timeout(900)

BUNDLE = "/mnt/equipoise/runs/topics"


def refused(found: subprocess.CompletedProcess[str], status: int) -> str:
    assert found.returncode == status, found.stderr
    assert "Traceback" not in found.stderr
    return found.stderr.splitlines()[-1]


@pytest.fixture
def there(own_server: Any, definitions: list[Manifest], contents: ModuleType) -> Any:
    """The server's client, its CRDs as they should be, whatever the test before did."""
    own_server.know("admin", "submitter", "nobody")
    own_server.stop()
    own_server.start()
    found = contents.client_of(own_server.kubeconfig)
    contents.install(found, definitions)
    contents.add_node(found)
    return found


class Screen:
    """What a person would see."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.states: list[str] = []

    def state(self, job: Job) -> None:
        self.states.append(job.state)

    def log(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_without_kuberay_nothing_is_created_and_its_installation_is_named(
    equipoise: Command, bare_server: Any, contents: ModuleType, run_file: Path
) -> None:
    from kubernetes import client

    admin = contents.client_of(bare_server.kubeconfig)
    namespace = contents.make_namespace(admin)
    for arguments in (("submit", "--detach"), ("deploy", BUNDLE)):
        command = (*arguments, "-f", str(run_file), "--namespace", namespace)
        line = refused(equipoise(bare_server.kubeconfig, *command), 2)
        assert "KubeRay is missing" in line
        assert "helm install kuberay-operator" in line
    assert client.CoreV1Api(admin).list_namespaced_config_map(namespace).items == []


def test_crds_without_a_field_of_ours_ask_for_an_upgrade_and_leave_nothing(
    equipoise: Command,
    own_server: Any,
    there: Any,
    contents: ModuleType,
    definitions: list[Manifest],
    run_file: Path,
) -> None:
    from kubernetes import client

    older = copy.deepcopy(definitions)
    for definition in older:
        for version in definition["spec"]["versions"]:
            spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            for key in ("rayClusterSpec", "rayClusterConfig"):
                spec.get(key, {}).get("properties", {}).pop("authOptions", None)
    contents.install(there, older)
    namespace = contents.make_namespace(there)
    api, config = connect(namespace=namespace, kubeconfig=str(own_server.kubeconfig)), load_config(run_file)
    job = job_manifests(config, "topics")[-1]

    def is_refused() -> bool:
        try:
            api.apply(job, dry_run=True)
        except InputError:
            return True
        return False

    # A server serves a changed definition a moment after it has taken it.
    _until(is_refused)
    for arguments in (("submit", "--detach"), ("deploy", BUNDLE)):
        command = (*arguments, "-f", str(run_file), "--namespace", namespace)
        line = refused(equipoise(own_server.kubeconfig, *command), 2)
        assert "authOptions" in line
        assert "upgrade KubeRay and its CRDs to 1.7" in line
    held = client.CoreV1Api(there).list_namespaced_config_map(namespace).items
    assert [entry.metadata.name for entry in held] == []


def test_a_server_that_is_gone_is_worth_a_retry(
    equipoise: Command, own_server: Any, there: Any, contents: ModuleType, run_file: Path
) -> None:
    own_server.stop()
    for arguments in (("submit", "--detach"), ("deploy", BUNDLE)):
        line = refused(equipoise(own_server.kubeconfig, *arguments, "-f", str(run_file)), 6)
        assert "the API server does not answer" in line


def test_a_server_killed_while_a_run_is_followed_and_a_service_waited_for_comes_back(
    own_server: Any, there: Any, contents: ModuleType, run_file: Path
) -> None:
    namespace = contents.make_namespace(there)
    api = connect(namespace=namespace, kubeconfig=str(own_server.kubeconfig))
    config, jobs, services = load_config(run_file), KubernetesJobs(api), Services(api)
    job_id = submission_id(config)
    jobs.submit(job_manifests(config, job_id))
    services.deploy(service_manifest(BUNDLE, "topics", config.cluster, ServingConfig()))
    screen, told, ended = Screen(), [], {}

    def run() -> None:
        ended["job"] = follow(jobs, job_id, screen, poll_s=0.2).state

    def wait() -> None:
        ended["service"] = services.wait("topics", BUNDLE, told.append, timeout_s=600).phase

    threads = [threading.Thread(target=each, daemon=True) for each in (run, wait)]
    for thread in threads:
        thread.start()
    _until(lambda: bool(screen.states and told))
    own_server.stop()
    _until(lambda: bool(screen.notes) and any("no contact" in line for line in told))
    own_server.start()
    write = contents.status_writer(there, namespace)
    write("rayjobs", job_id, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    write("rayservices", "topics", conditions=[ready()], observedGeneration=1)
    for thread in threads:
        thread.join(timeout=120)
    assert ended == {"job": "succeeded", "service": "ready"}


def test_a_user_forgotten_while_a_run_is_followed_is_told_what_stays(
    own_server: Any, there: Any, contents: ModuleType, run_file: Path
) -> None:
    namespace = contents.make_namespace(there)
    api = connect(namespace=namespace, kubeconfig=str(own_server.kubeconfig))
    config, jobs = load_config(run_file), KubernetesJobs(api)
    job_id = submission_id(config)
    jobs.submit(job_manifests(config, job_id))
    own_server.know("nobody")
    own_server.stop()
    # `start` asks as the user that is no longer known: what answers 401 is ready too.
    own_server.start(ready=401)
    with pytest.raises(ConfigError, match="may have expired") as found:
        follow(jobs, job_id, Screen(), poll_s=0.2)
    assert f"job {job_id} is there; `equipoise cancel {job_id} {jobs.options}` removes it" in str(found.value)


def ready() -> Manifest:
    return {
        "type": "Ready",
        "status": "True",
        "reason": "NonZeroServeEndpoints",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
