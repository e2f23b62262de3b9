"""Results out of the head pod, over the same WebSocket that kubectl exec speaks; the command really runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.cluster.kubernetes_jobs import KubernetesJobs
from equipoise.cluster.submission import fetch_from_kubernetes
from equipoise.config import RunConfig
from equipoise.errors import InputError, ServiceError


@pytest.fixture
def jobs(api: KubernetesApi, server: Any, tmp_path: Path) -> KubernetesJobs:
    """A namespace with one head pod, whose claim lies in `tmp_path / "claim"`."""
    labels = {"app.kubernetes.io/instance": "a", "ray.io/node-type": "head"}
    server.put(
        "pods", "research", {"metadata": {"name": "a-head", "labels": labels}, "status": {"phase": "Running"}}
    )

    def run(pod: str, command: list[str]) -> tuple[int, bytes, bytes]:
        assert (pod, command[0]) == ("a-head", "python")
        here = [
            sys.executable,
            *command[1:-1],
            command[-1].replace("/mnt/equipoise", str(tmp_path / "claim")),
        ]
        found = subprocess.run(here, capture_output=True, check=False, timeout=60)
        return found.returncode, found.stdout, found.stderr

    server.run = run
    return KubernetesJobs(api)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "claim" / "runs" / "topics"
    (folder / "bundle").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    # More than one frame of what does not shrink.
    (folder / "bundle" / "weights").write_bytes(bytes(number * 7919 % 251 for number in range(200_000)))
    return folder


def test_the_records_of_a_run_come_out_of_its_head_pod(
    jobs: KubernetesJobs, run_folder: Path, sample_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    fetch_from_kubernetes(sample_run(), jobs, "a", tmp_path / "here")
    assert (tmp_path / "here/bundle/weights").read_bytes() == (run_folder / "bundle/weights").read_bytes()
    assert json.loads((tmp_path / "here/fetched.json").read_text())["job"] == "a"


def test_a_command_that_fails_there_says_its_own_line(
    jobs: KubernetesJobs, sample_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with pytest.raises(ServiceError, match=r"pod a-head: python ended with 2: equipoise: .*is no run folder"):
        fetch_from_kubernetes(sample_run(), jobs, "a", tmp_path / "here")


def test_without_the_right_to_exec_one_is_told(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    server.refuse("GET", "/exec", 403, "pods/exec is forbidden")
    with pytest.raises(InputError, match="not allowed"):
        fetch_from_kubernetes(sample_run(), jobs, "a", tmp_path / "here")


def test_a_head_pod_that_is_gone_is_said(
    jobs: KubernetesJobs, server: Any, sample_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    server.objects.clear()
    with pytest.raises(InputError, match=r"its head pod is gone; raise cluster\.keep_s"):
        fetch_from_kubernetes(sample_run(), jobs, "a", tmp_path / "here")
