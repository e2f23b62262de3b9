"""The commands against a real API server: a submission and a deployment, start to end, and refusals."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


def refused(found: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line of a command that ended with a status and printed nothing else."""
    assert found.returncode == status, found.stderr
    line = found.stderr.splitlines()[-1]
    assert line.startswith("equipoise: ")
    assert "Traceback" not in found.stderr
    return line


def test_a_run_is_submitted_joined_listed_and_cancelled(
    equipoise: Command, kubeconfig: Path, namespace: str, run_file: Path, server: Any
) -> None:
    where = ("--namespace", namespace)
    first = equipoise(kubeconfig, "submit", "-f", str(run_file), *where, "--detach", "--json")
    assert first.returncode == 0, first.stderr
    outcome = json.loads(first.stdout)
    job = outcome["id"]
    assert outcome["created"] == [f"{kind} {namespace}/{job}" for kind in ("ConfigMap", "RayJob")]
    again = equipoise(kubeconfig, "submit", "-f", str(run_file), *where, "--detach", "--json")
    assert json.loads(again.stdout)["joined"] is True
    [listed] = json.loads(equipoise(kubeconfig, "jobs", *where, "--json").stdout)
    assert (listed["id"], listed["state"]) == (job, "starting")
    removed = json.loads(equipoise(kubeconfig, "cancel", job, *where, "--json").stdout)["removed"]
    assert removed == [f"{kind} {namespace}/{job}" for kind in ("RayJob", "ConfigMap")]
    assert json.loads(equipoise(kubeconfig, "jobs", *where, "--json").stdout) == []


def test_a_bundle_is_deployed_waited_for_and_removed(
    equipoise: Command, kubeconfig: Path, namespace: str, run_file: Path, server: Any
) -> None:
    bundle, where = "/mnt/equipoise/runs/topics", ("--namespace", namespace)
    waits = equipoise(kubeconfig, "deploy", bundle, "-f", str(run_file), *where, "--wait-s", "1")
    line = refused(waits, 6)
    assert f"`equipoise undeploy topics --namespace {namespace}` removes it" in line
    [service] = json.loads(equipoise(kubeconfig, "status", *where, "--json").stdout)
    assert (service["name"], service["phase"], service["bundle"]) == ("topics", "starting", bundle)
    gone = equipoise(kubeconfig, "undeploy", "topics", *where)
    assert f"removed RayService {namespace}/topics" in gone.stdout
    refused(equipoise(kubeconfig, "undeploy", "topics", *where), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", "-f", "run.yaml", "--detach"),
        ("deploy", "/mnt/equipoise/runs/topics", "-f", "run.yaml"),
    ],
    ids=["submit", "deploy"],
)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--context", f"none-{uuid.uuid4().hex}"), "no such context"),
        (("--namespace", "no-such-namespace"), "kubectl create namespace no-such-namespace"),
        (("--context", "nobody"), 'User "nobody" cannot'),
        (("--context", "expired"), "does not accept these credentials; they may have expired"),
    ],
    ids=["context", "namespace", "rights", "credentials"],
)
def test_a_place_that_cannot_be_used_is_one_line(
    equipoise: Command,
    kubeconfig: Path,
    run_file: Path,
    server: Any,
    arguments: tuple[str, ...],
    options: tuple[str, str],
    says: str,
) -> None:
    if options[1] in ("nobody", "expired") and f"name: {options[1]}\n" not in kubeconfig.read_text():
        pytest.skip(f"the kubeconfig for tests has no context `{options[1]}`")
    assert says in refused(equipoise(kubeconfig, *arguments, *options), 2)
