"""The cluster commands without a cluster: what they print, and what they say is missing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Equipoise = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    values = {
        "name": "topics",
        "data": {"train": "sample://reuters-r8/train", "test": "sample://reuters-r8/test"},
        "model": {"teacher": "sample://all-minilm-l6-v2"},
        "cluster": {"image": "registry.example/equipoise:0.1", "storage": {"claim": "runs"}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_dry_run_prints_what_kubectl_would_apply(equipoise: Equipoise, config: Path) -> None:
    found = equipoise("submit", "-f", str(config), "--dry-run", "-n", "research")
    assert found.returncode == 0, found.stderr
    config_map, job = yaml.safe_load_all(found.stdout)
    assert (config_map["kind"], job["kind"]) == ("ConfigMap", "RayJob")
    assert job["metadata"]["namespace"] == "research"
    # Long texts stay readable.
    assert "  run.yaml: |" in found.stdout
    listed = json.loads(equipoise("submit", "-f", str(config), "--dry-run", "-o", "json").stdout)
    assert [item["kind"] for item in listed["items"]] == ["ConfigMap", "RayJob"]


def test_a_dry_run_on_ray_says_what_would_be_uploaded(equipoise: Equipoise, config: Path) -> None:
    found = equipoise("submit", "-f", str(config), "--on", "ray", "--dry-run")
    assert found.returncode == 0, found.stderr
    assert "python -m equipoise.cli.main run -f run.yaml" in found.stdout
    assert "would upload" in found.stdout


@pytest.mark.parametrize("part", ["finetune", "distill", "search"])
def test_a_part_of_a_run_is_a_job_of_its_own_in_the_same_run_folder(
    equipoise: Equipoise, config: Path, tmp_path: Path, part: str
) -> None:
    def printed(*arguments: str) -> str:
        found = equipoise("submit", "-f", str(config), "--dry-run", *arguments)
        assert found.returncode == 0, found.stderr
        return found.stdout

    config_map, job = yaml.safe_load_all(printed("--until", part))
    whole_map, whole = yaml.safe_load_all(printed())
    name = job["metadata"]["name"]
    assert name == whole["metadata"]["name"].replace("topics-", f"topics-{part}-")
    assert (job["spec"]["jobId"], config_map["metadata"]["name"]) == (name, name)
    assert job["spec"]["entrypoint"] == f"{whole['spec']['entrypoint']} --until {part}"
    assert config_map["data"] == whole_map["data"]
    on_ray = printed("--on", "ray", "--until", part).splitlines()[0]
    assert on_ray.startswith(f"job {name}: ")
    assert on_ray.endswith(f"/topics --until {part}")
    into = tmp_path / "deploy"
    assert equipoise("render", "-f", str(config), "--into", str(into), "--until", part).returncode == 0
    written = yaml.safe_load((into / f"rayjob.{name}.yaml").read_text())
    assert written["spec"]["entrypoint"] == job["spec"]["entrypoint"]


def test_another_part_is_refused_with_those_that_there_are(equipoise: Equipoise, config: Path) -> None:
    found = equipoise("submit", "-f", str(config), "--dry-run", "--until", "teacher")
    assert (found.returncode, found.stdout) == (2, "")
    assert all(part in found.stderr for part in ("finetune", "distill", "search"))


def test_render_writes_one_object_a_file(equipoise: Equipoise, config: Path, tmp_path: Path) -> None:
    into = tmp_path / "deploy"
    found = equipoise("render", "-f", str(config), "--into", str(into), "--bundle", "s3://models/topics")
    assert found.returncode == 0, found.stderr
    kinds = {path.name: yaml.safe_load(path.read_text())["kind"] for path in into.iterdir()}
    assert set(kinds.values()) == {"ConfigMap", "RayJob", "RayCluster", "RayService"}
    assert kinds["rayservice.topics.yaml"] == "RayService"
    before = {path.name: path.read_bytes() for path in into.iterdir()}
    equipoise("render", "-f", str(config), "--into", str(into), "--bundle", "s3://models/topics")
    assert {path.name: path.read_bytes() for path in into.iterdir()} == before


def test_a_deployment_can_be_looked_at_before(equipoise: Equipoise, config: Path) -> None:
    found = equipoise(
        "deploy", "/mnt/equipoise/runs/topics", "-f", str(config), "--dry-run", "--replicas", "4"
    )
    assert found.returncode == 0, found.stderr
    service = yaml.safe_load(found.stdout)
    served = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert served["applications"][0]["args"]["serving"]["replicas"] == 4


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("jobs",), 2, "no kubeconfig"),
        (("status",), 2, "no kubeconfig"),
        (("undeploy", "topics"), 2, "no kubeconfig"),
        (("cancel", "topics"), 2, "no kubeconfig"),
        (("jobs", "--on", "ray"), 2, "--address: no Ray cluster is named"),
        (("jobs", "--on", "ray", "--address", "ray://head:10001"), 2, "is no dashboard's URL"),
        (("logs", "a", "--on", "ray", "--address", "http://127.0.0.1:1"), 6, "the Jobs API does not answer"),
        (
            ("jobs", "--on", "ray", "--address", "http://127.0.0.1:1", "--token-file", "no"),
            2,
            "token cannot be read",
        ),
    ],
)
def test_what_is_missing_is_one_line(
    arguments: tuple[str, ...],
    status: int,
    text: str,
    equipoise: Equipoise,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = equipoise(*arguments)
    assert (found.returncode, found.stdout) == (status, "")
    assert text in found.stderr
    assert found.stderr.count("\n") == 1


def test_without_an_image_one_is_told_where_it_comes_from(equipoise: Equipoise, config: Path) -> None:
    values = yaml.safe_load(config.read_text())
    del values["cluster"]["image"]
    config.write_text(yaml.safe_dump(values))
    found = equipoise("submit", "-f", str(config), "--dry-run")
    assert found.returncode == 2
    assert "cluster.image: pods need an image with Equipoise and Ray" in found.stderr
    assert equipoise("submit", "-f", str(config), "--dry-run", "--image", "x").returncode == 0
