"""The plain manifests: valid, restricted, of the locked versions, and naming what is there."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.config import RunConfig, validate_config
from equipoise.exporter.rules import RULES
from equipoise_serving.app import ApplicationArgs

Manifest = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[2]
K8S = REPOSITORY / "k8s"
KUSTOMIZATIONS = [K8S, K8S / "monitoring", K8S / "kind"]
FILES = sorted(
    path
    for path in K8S.rglob("*.yaml")
    if path.name not in ("kustomization.yaml", "small.yaml", "cluster.yaml")
)


def read(path: Path) -> list[Manifest]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


def cluster_of(manifest: Manifest) -> Manifest:
    spec = manifest["spec"]
    found: Manifest = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
    return found


RAY = [each for path in sorted(K8S.glob("ray*.yaml")) for each in read(path) if each["kind"] != "ConfigMap"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(K8S)))
def test_every_manifest_is_what_the_api_server_takes(
    validate: Callable[[Manifest], None], path: Path
) -> None:
    objects = read(path)
    assert objects
    for each in objects:
        validate(each)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_every_kustomization_builds_and_its_objects_are_valid(
    kustomize: Callable[[Path], list[Manifest]], validate: Callable[[Manifest], None], folder: Path
) -> None:
    objects = kustomize(folder)
    assert len(objects) >= 3
    for each in objects:
        validate(each)


@pytest.mark.parametrize("folder", [K8S, K8S / "monitoring"], ids=lambda path: path.name)
def test_what_apply_k_is_told_for_builds_without_options(
    kustomize: Callable[..., list[Manifest]], folder: Path
) -> None:
    assert (
        f"`kubectl apply -k {folder.relative_to(REPOSITORY)}`" in (folder / "kustomization.yaml").read_text()
    )
    assert kustomize(folder, restricted=True) == kustomize(folder)


def test_the_dashboards_are_the_charts(
    kustomize: Callable[..., list[Manifest]], helm: Callable[..., Any], tmp_path: Path
) -> None:
    dashboards = REPOSITORY / "charts" / "equipoise" / "dashboards"
    objects = kustomize(K8S / "monitoring", restricted=True)
    maps = [each for each in objects if each["kind"] == "ConfigMap"]
    files = {name: text for each in maps for name, text in each["data"].items()}
    assert files == {path.name: path.read_text(encoding="utf-8") for path in dashboards.glob("*.json")}
    assert len(maps) == len(files) == 2
    for each in maps:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["namespace"] == "equipoise"
    # The file that makes them is no part of the chart.
    helm("package", REPOSITORY / "charts" / "equipoise", "-d", tmp_path, check=True)
    [package] = tmp_path.glob("*.tgz")
    with tarfile.open(package) as tar:
        packed = [Path(name).name for name in tar.getnames() if "/dashboards/" in name]
    assert sorted(packed) == sorted(files)


def test_every_manifest_is_in_a_kustomization_or_is_applied_by_itself() -> None:
    listed = {
        (folder / name).resolve()
        for folder in KUSTOMIZATIONS
        for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    }
    alone = {path.name for path in FILES if path not in listed}
    jobs = {f"rayjob.{kind}.yaml" for kind in ("finetune", "distill", "search")}
    assert alone == jobs | {"rayservice.generation.yaml", "raycluster.gpu.yaml", "kueue.queues.yaml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(K8S)))
def test_every_pod_is_restricted(
    templates: Callable[[Manifest], list[Manifest]],
    breaches: Callable[[Manifest], list[str]],
    path: Path,
) -> None:
    for each in read(path):
        for pod in templates(each):
            assert breaches(pod["spec"]) == [], each["metadata"]["name"]
            volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
            for container in pod["spec"]["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_overlay_for_kind_stays_restricted_and_small(
    kustomize: Callable[[Path], list[Manifest]],
    templates: Callable[[Manifest], list[Manifest]],
    breaches: Callable[[Manifest], list[str]],
) -> None:
    pods = [pod for each in kustomize(K8S / "kind") for pod in templates(each)]
    assert len(pods) == 3
    for pod in pods:
        assert breaches(pod["spec"]) == []
        [container] = pod["spec"]["containers"]
        assert container["imagePullPolicy"] == "Never"
        assert container["resources"]["requests"]["cpu"].endswith("m")


@pytest.mark.parametrize("manifest", RAY, ids=lambda each: f"{each['kind']}.{each['metadata']['name']}")
def test_ray_asks_for_its_token_and_the_head_runs_no_work(manifest: Manifest) -> None:
    cluster = cluster_of(manifest)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["resources"] == {"CPU": "0"}
    for template in (
        cluster["headGroupSpec"]["template"],
        *(group["template"] for group in cluster["workerGroupSpecs"]),
    ):
        [container] = template["spec"]["containers"]
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert env["RAY_SERVE_ENABLE_HA_PROXY"] == env["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
        # KubeRay's: its services select by it.
        assert "app.kubernetes.io/name" not in template["metadata"]["labels"]
    scaling = cluster.get("enableInTreeAutoscaling", False)
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert head["automountServiceAccountToken"] is scaling


@pytest.mark.parametrize("manifest", RAY, ids=lambda each: f"{each['kind']}.{each['metadata']['name']}")
def test_the_versions_are_those_that_are_locked(manifest: Manifest) -> None:
    locked = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    version = re.search(r"^ray==(.+)$", locked, flags=re.MULTILINE)
    assert version is not None
    cluster = cluster_of(manifest)
    assert cluster["rayVersion"] == version.group(1)
    images = re.findall(r"'image': '([^']+)'", str(manifest))
    own = re.search(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert own is not None
    for image in images:
        repository, _, tag = image.partition(":")
        assert tag.startswith(own.group(1) if repository == "equipoise" else version.group(1)), image


@pytest.mark.parametrize("kind", ["finetune", "distill", "search"])
def test_a_job_runs_a_config_that_the_run_takes(kind: str) -> None:
    config_map, job = read(K8S / f"rayjob.{kind}.yaml")
    config = validate_config(RunConfig, yaml.safe_load(config_map["data"]["run.yaml"]), where=kind)
    assert config.name == kind
    until = "" if kind == "search" else f" --until {kind}"
    assert job["spec"]["entrypoint"] == (
        f"equipoise run -f /etc/equipoise/run/run.yaml --out /equipoise/runs/{kind}{until}"
    )
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert {"name": "run-config", "configMap": {"name": config_map["metadata"]["name"]}} in head["volumes"]
    mounts = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    assert (mounts["run-config"], mounts["data"]) == ("/etc/equipoise/run", "/equipoise")
    # What Kueue asks of a RayJob, so that its label alone is enough.
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "enableInTreeAutoscaling" not in job["spec"]["rayClusterSpec"]


def test_the_jobs_search_what_their_names_say() -> None:
    def config(kind: str) -> RunConfig:
        config_map, _ = read(K8S / f"rayjob.{kind}.yaml")
        return validate_config(RunConfig, yaml.safe_load(config_map["data"]["run.yaml"]), where=kind)

    distill, search = config("distill"), config("search")
    assert (distill.search.depths, distill.search.layers) == ((2,), ("spread",))
    assert search.search.trials > 10


def test_the_classifier_is_built_by_the_application_that_is_there(
    kustomize: Callable[[Path], list[Manifest]],
) -> None:
    services = [*read(K8S / "rayservice.classifier.yaml"), *kustomize(K8S / "kind")]
    configs = [
        yaml.safe_load(each["spec"]["serveConfigV2"]) for each in services if each["kind"] == "RayService"
    ]
    assert len(configs) == 2
    for config in configs:
        [application] = config["applications"]
        assert application["import_path"] == "equipoise_serving.app:build"
        given = validate_config(ApplicationArgs, application["args"], where="args")
        assert given.bundle == "/equipoise/runs/demo/bundle"
        assert given.serving.api_keys == "/etc/equipoise/keys/keys.json"


def test_the_generation_service_names_rays_own_builder_and_keys_that_it_knows() -> None:
    [service] = read(K8S / "rayservice.generation.yaml")
    [application] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    module, _, name = application["import_path"].partition(":")
    source = Path(__import__("ray").__file__).parent / "llm" / "_internal" / "serve" / "core" / "configs"
    assert (module, name) == ("ray.serve.llm", "build_openai_app")
    known = (source / "llm_config.py").read_text(encoding="utf-8")
    for config in application["args"]["llm_configs"]:
        assert all(re.search(rf"^    {key}:", known, flags=re.MULTILINE) for key in config), config
    pods = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert all(
        group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for group in pods
    )


def test_the_rules_are_those_of_the_chart() -> None:
    [rule] = read(K8S / "monitoring" / "prometheusrule.yaml")
    chart = REPOSITORY / "charts" / "equipoise" / "rules" / "equipoise.yaml"
    assert rule["spec"] == yaml.safe_load(chart.read_text(encoding="utf-8"))


def test_the_rules_on_dollars_are_those_of_the_exporter() -> None:
    chart = REPOSITORY / "charts" / "equipoise" / "rules" / "dollars.yaml"
    assert chart.read_text(encoding="utf-8") == RULES.read_text(encoding="utf-8")
    [rule] = read(K8S / "monitoring" / "dollars.prometheusrule.yaml")
    assert rule["spec"] == yaml.safe_load(RULES.read_text(encoding="utf-8"))


def test_kueues_queue_is_the_one_that_the_jobs_name() -> None:
    [local] = [each for each in read(K8S / "kueue.queues.yaml") if each["kind"] == "LocalQueue"]
    [queue] = [each for each in read(K8S / "kueue.queues.yaml") if each["kind"] == "ClusterQueue"]
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    flavors = {
        each["metadata"]["name"] for each in read(K8S / "kueue.queues.yaml") if "Flavor" in each["kind"]
    }
    used = {flavor["name"] for group in queue["spec"]["resourceGroups"] for flavor in group["flavors"]}
    assert used == flavors
    for path in K8S.glob("rayjob.*.yaml"):
        # The label is commented out, for clusters without Kueue; taken in, it is one of the job's.
        text = path.read_text(encoding="utf-8").replace("# kueue.x-k8s.io/", "kueue.x-k8s.io/")
        [job] = [each for each in yaml.safe_load_all(text) if each and each["kind"] == "RayJob"]
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]


def test_up_says_which_tool_is_missing(tmp_path: Path) -> None:
    script = K8S / "kind" / "up.sh"
    assert os.access(script, os.X_OK)
    for tool in ("dirname", "bash", "env"):
        (tmp_path / tool).symlink_to(Path("/usr/bin") / tool)
    for tool in ("docker", "kind"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    done = subprocess.run(
        ["bash", str(script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.startswith("up.sh: kubectl is not installed; it needs docker, kind, kubectl, helm")


def test_up_names_what_is_there() -> None:
    script = (K8S / "kind" / "up.sh").read_text(encoding="utf-8")
    for path in re.findall(r"\bk8s/[\w./-]+", script):
        assert (REPOSITORY / path).exists(), path
    assert re.search(r"^KUBERAY=1\.7\.0$", script, flags=re.MULTILINE)
    [image] = re.findall(r"^IMAGE=(.+)$", script, flags=re.MULTILINE)
    [exporter, *_] = [each for each in read(K8S / "exporter.yaml") if each["kind"] == "Deployment"]
    assert exporter["spec"]["template"]["spec"]["containers"][0]["image"] == image
