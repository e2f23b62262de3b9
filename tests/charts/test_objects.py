"""Every object that the chart renders: valid for the API server, and within Pod Security `restricted`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]

CHART = Path(__file__).resolve().parents[2] / "charts" / "equipoise"
CI = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


@pytest.mark.parametrize("name", CI)
def test_every_object_is_what_the_api_server_takes(
    render: Render, validate: Callable[[Manifest], None], name: str
) -> None:
    objects = render(name)
    assert len(objects) > 10
    for each in core_first(objects):
        validate(each)


def core_first(objects: list[Manifest]) -> list[Manifest]:
    """Kubernetes' own kinds before KubeRay's, whose schemas are not everywhere."""
    return sorted(objects, key=lambda each: str(each["apiVersion"]).startswith("ray.io"))


@pytest.mark.parametrize(
    ("name", "values", "part", "holds"),
    [
        (
            "default",
            ['gcsFaultTolerance.backend="rocksdb"'],
            ("rayClusterConfig", "gcsFaultToleranceOptions", "backend"),
            "rocksdb",
        ),
        (
            "default",
            ['serving.workerGroups.cpu.spot="eks"'],
            ("rayClusterConfig", "workerGroupSpecs", 0, "template", "spec", "nodeSelector"),
            {"eks.amazonaws.com/capacityType": "SPOT"},
        ),
        (
            "default",
            ['storage.kind="gcs"', 'storage.gcs.secret="key"'],
            ("rayClusterConfig", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "env"),
            {"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/etc/equipoise/gcs/key.json"},
        ),
    ],
    ids=["rocksdb", "eks", "gcs"],
)
def test_values_beside_those_of_the_examples_make_valid_objects(
    render: Render,
    validate: Callable[[Manifest], None],
    find: Callable[..., Manifest],
    name: str,
    values: list[str],
    part: tuple[Any, ...],
    holds: Any,
) -> None:
    objects = render(name, values)
    for each in core_first(objects):
        validate(each)
    found: Any = find(objects, "RayService")["spec"]
    for key in part:
        found = found[key]
    assert holds in found if isinstance(found, list) else found == holds


def test_the_validation_refuses_what_an_api_server_refuses(
    render: Render, validate: Callable[[Manifest], None], find: Callable[..., Manifest]
) -> None:
    service = copy.deepcopy(find(render(), "RayService"))
    service["spec"]["rayClusterConfig"]["authOption"] = {}
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        validate(service)
    service = copy.deepcopy(find(render(), "RayService"))
    container = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["ports"][0]["containerPort"] = "6379"
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(service)
    deployment = copy.deepcopy(find(render(), "Deployment"))
    deployment["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        validate(deployment)


@pytest.mark.parametrize("name", CI)
def test_names_are_unique_and_short_enough_for_what_kuberay_appends(render: Render, name: str) -> None:
    objects = render(name)
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names)
    # KubeRay refuses longer ones (MaxRayServiceNameLength, MaxRayClusterNameLength).
    limits = {"RayService": 47, "RayJob": 47, "RayCluster": 53}
    assert all(len(found) <= limits.get(kind, 63) for kind, found in names)


def test_the_longest_name_is_still_short_enough(render: Render) -> None:
    name = '"' + "n" * 40 + '"'
    for each in [
        *render("run", [f"fullnameOverride={name}"]),
        *render("gpu", [f"fullnameOverride={name}"]),
    ]:
        limit = {"RayService": 47, "RayJob": 47, "RayCluster": 53}.get(each["kind"], 63)
        assert len(each["metadata"]["name"]) <= limit


@pytest.mark.parametrize("name", CI)
def test_every_pod_is_restricted(
    render: Render,
    templates: Callable[[Manifest], list[Manifest]],
    breaches: Callable[[Manifest], list[str]],
    name: str,
) -> None:
    pods = {each["metadata"]["name"]: templates(each) for each in render(name)}
    assert sum(map(len, pods.values())) > 2
    for owner, found in pods.items():
        for pod in found:
            assert breaches(pod["spec"]) == [], owner
            for container in pod["spec"]["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                assert {"requests", "limits"} <= container["resources"].keys()


@pytest.mark.parametrize("name", CI)
def test_the_containers_that_kuberay_adds_are_restricted_too(
    render: Render, breaches: Callable[[Manifest], list[str]], name: str
) -> None:
    for each in render(name):
        spec = each.get("spec", {})
        cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
        if not cluster.get("enableInTreeAutoscaling"):
            continue
        head = cluster["headGroupSpec"]["template"]["spec"]
        added = {"name": "autoscaler", "securityContext": cluster["autoscalerOptions"]["securityContext"]}
        assert breaches({**head, "containers": [added]}) == []
        mounted = {mount["name"] for mount in cluster["autoscalerOptions"]["volumeMounts"]}
        assert mounted <= {volume["name"] for volume in head["volumes"]}


def test_the_check_finds_each_breach(breaches: Callable[[Manifest], list[str]]) -> None:
    good: Manifest = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "a",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    assert breaches(good) == []
    assert breaches({**good, "hostPID": True}) == ["hostPID"]
    assert breaches({**good, "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}) == ["volume v"]
    assert breaches({**good, "securityContext": {}}) == ["a: root", "a: seccomp"]
    assert breaches({**good, "initContainers": [{"name": "i"}]}) == [
        "i: privilege escalation",
        "i: capabilities",
    ]


@pytest.mark.parametrize("name", CI)
def test_a_token_is_mounted_only_where_the_autoscaler_needs_it(
    render: Render, templates: Callable[[Manifest], list[Manifest]], name: str
) -> None:
    for each in render(name):
        spec = each.get("spec", {})
        cluster = spec.get("rayClusterConfig") or spec
        scaling = cluster.get("enableInTreeAutoscaling", False)
        for pod in templates(each):
            is_head = pod["spec"]["containers"][0]["name"] == "ray-head"
            assert pod["spec"]["automountServiceAccountToken"] is (scaling and is_head)


@pytest.mark.parametrize("name", CI)
def test_every_mounted_volume_is_there(
    render: Render, templates: Callable[[Manifest], list[Manifest]], name: str
) -> None:
    for each in render(name):
        for pod in templates(each):
            volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
            for container in pod["spec"]["containers"]:
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
                assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108


@pytest.mark.parametrize("name", CI)
def test_what_a_release_refers_to_is_in_it_or_named_by_its_values(render: Render, name: str) -> None:
    objects = render(name)
    held = {(each["kind"], each["metadata"]["name"]) for each in objects}
    values = (CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8")

    def walk(value: Any) -> None:
        if isinstance(value, list):
            for inner in value:
                walk(inner)
        if not isinstance(value, dict):
            return
        for key, inner in value.items():
            kind = {"secretKeyRef": "Secret", "secretRef": "Secret", "configMap": "ConfigMap"}.get(key)
            if kind and isinstance(inner, dict) and "name" in inner:
                assert (kind, inner["name"]) in held or inner["name"] in values, inner
            if key == "claimName":
                assert ("PersistentVolumeClaim", inner) in held, inner
            if key == "serviceAccountName":
                assert ("ServiceAccount", inner) in held, inner
            if key == "secretName":
                assert ("Secret", inner) in held or inner in values, inner
            walk(inner)

    walk(objects)
