"""values.yaml and its schema: strict, documented, and of the same run config as the code."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

Helm = Callable[..., Any]

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "equipoise"
CI = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = REPOSITORY / "charts" / "generate_schema.py"
    spec = importlib.util.spec_from_file_location("generate_schema", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schema_is_that_of_the_code(generator: ModuleType) -> None:
    assert (CHART / "values.schema.json").read_text(encoding="utf-8") == generator.render_schema(), (
        "charts/equipoise/values.schema.json is stale: run `make chart-schema`"
    )


@pytest.mark.parametrize("name", CI)
def test_every_values_file_passes_lint(helm: Helm, name: str) -> None:
    done = helm("lint", CHART, "--strict", "-f", CHART / "ci" / f"{name}-values.yaml")
    assert done.returncode == 0, done.stdout


WRONG = [
    ("servng.enabled=true", "at '': additional properties 'servng' not allowed"),
    ('serving.bundel="x"', "at '/serving': additional properties 'bundel' not allowed"),
    ('serving.bundle="models/x"', "at '/serving/bundle': 'models/x' does not match pattern"),
    ("serving.options.replicas=0", "at '/serving/options/replicas': minimum: got 0, want 1"),
    ("serving.options.replica=2", "at '/serving/options': additional properties 'replica' not allowed"),
    ('serving.workerGroups.cpu.spot="yes"', "at '/serving/workerGroups/cpu/spot': value must be one of"),
    ("serving.workerGroups.gpu={}", "at '/serving/workerGroups/gpu': missing properties"),
    ('serving.workerGroups.cpu.resources.limits.cpu="many"', "at '/serving/workerGroups/cpu/resources/"),
    ('serving.upgradeStrategy="Recreate"', "at '/serving/upgradeStrategy': value must be one of"),
    ('auth.ray.mode="none"', "at '/auth/ray/mode': value must be one of 'token', 'disabled'"),
    ("ingress.enabled=true", "at '/ingress/host': minLength: got 0, want 1"),
    ('networkPolicy.clients=[{"anyone":true}]', "at '/networkPolicy/clients/0'"),
    (
        'networkPolicy.clients=[{"podSelector":{"matchLabel":{"a":"b"}}}]',
        "at '/networkPolicy/clients/0/podSelector': additional properties 'matchLabel' not allowed",
    ),
    (
        'networkPolicy.jobClients=[{"namespaceSelector":{"matchLabels":{"team":1}}}]',
        "at '/networkPolicy/jobClients/0/namespaceSelector/matchLabels/team': got number, want string",
    ),
    (
        'networkPolicy.clients=[{"podSelector":{"matchExpressions":[{"key":"a","operator":"in"}]}}]',
        "at '/networkPolicy/clients/0/podSelector/matchExpressions/0/operator': value must be one of 'In'",
    ),
    (
        'networkPolicy.clients=[{"ipBlock":{"cidr":"10.0.0.0/8","excpt":[]}}]',
        "at '/networkPolicy/clients/0/ipBlock': additional properties 'excpt' not allowed",
    ),
    (
        'networkPolicy.clients=[{"ipBlock":{"cidr":"10.0.0.0/8"},"podSelector":{}}]',
        "at '/networkPolicy/clients/0': maxProperties: got 2, want 1",
    ),
    (
        'networkPolicy.extraEgress=[{"form":[]}]',
        "at '/networkPolicy/extraEgress/0': additional properties 'form' not allowed",
    ),
    (
        'networkPolicy.extraEgress=[{"ports":[{"prot":6379}]}]',
        "at '/networkPolicy/extraEgress/0/ports/0': additional properties 'prot' not allowed",
    ),
    (
        'networkPolicy.extraEgress=[{"to":[{"podSelector":{"labels":{}}}]}]',
        "at '/networkPolicy/extraEgress/0/to/0/podSelector': additional properties 'labels' not allowed",
    ),
    ('fullnameOverride="' + "a" * 41 + '"', "at '/fullnameOverride': maxLength: got 41, want 40"),
    ('run={"enabled":true,"config":{"name":"a"}}', "at '/run/config': missing properties 'data', 'model'"),
    (
        'run={"enabled":true,"config":{"name":"a","data":{"train":"a.csv","test":"b.csv"},'
        '"model":{"teacher":"t"},"training":{"learning_rate":"fast"}}}',
        "at '/run/config/training/learning_rate': got string, want number",
    ),
]


@pytest.mark.parametrize(("value", "said"), [pytest.param(*each, id=each[0][:40]) for each in WRONG])
def test_a_wrong_value_is_refused_with_its_path(helm: Helm, value: str, said: str) -> None:
    linted = helm("lint", CHART, "--set-json", value)
    assert linted.returncode != 0
    assert said in linted.stdout
    rendered = helm("template", "eq", CHART, "--set-json", value, "--api-versions", "ray.io/v1/RayService")
    assert rendered.returncode != 0
    assert said in rendered.stderr
    assert rendered.stdout == ""


def objects_in(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") in ("object", ["object", "null"]):
            yield path, schema
        for key, inner in schema.items():
            yield from objects_in(inner, f"{path}/{key}")


def test_every_object_of_the_schema_is_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    found = dict(objects_in(schema))
    assert len(found) > 30
    assert [path for path, each in found.items() if each.get("additionalProperties") is not False] == []


def test_no_object_of_the_charts_own_schema_takes_just_anything() -> None:
    schema = yaml.safe_load((REPOSITORY / "charts" / "values.schema.yaml").read_text(encoding="utf-8"))

    def open_ones(part: Any, path: str = "") -> Iterator[str]:
        if isinstance(part, dict):
            if "object" in (part.get("type") or "") and "additionalProperties" not in part:
                yield path
            for key, inner in part.items():
                yield from open_ones(inner, f"{path}/{key}")

    # Helm's own key for values of all charts; and a run that is on is checked as RunConfig.
    assert set(open_ones(schema)) == {"/properties/global", "/properties/run/properties/config"}
    assert schema["properties"]["run"]["then"]["properties"]["config"] == {"$ref": "#/$defs/RunConfig"}


POLICIES = [
    'networkPolicy.clients=[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}]',
    'networkPolicy.jobClients=[{"podSelector":{"matchExpressions":[{"key":"team","operator":"In",'
    '"values":["a"]}]},"namespaceSelector":{}}]',
    'networkPolicy.extraEgress=[{"to":[{"namespaceSelector":{"matchLabels":{"a":"b"}}}],'
    '"ports":[{"port":"redis"},{"port":9000,"endPort":9010,"protocol":"TCP"}]},{"ports":[{"port":5432}]}]',
]


@pytest.mark.parametrize("value", POLICIES)
def test_what_the_network_policies_of_kubernetes_take_is_taken(
    render: Callable[..., list[dict[str, Any]]], validate: Callable[[dict[str, Any]], None], value: str
) -> None:
    policies = [each for each in render("gpu", [value]) if each["kind"] == "NetworkPolicy"]
    given = json.dumps(json.loads(value.partition("=")[2])[0], sort_keys=True)
    assert given in json.dumps(policies, sort_keys=True)
    for each in policies:
        validate(each)


def test_every_default_is_in_the_schema_and_the_other_way_round() -> None:
    schema = yaml.safe_load((REPOSITORY / "charts" / "values.schema.yaml").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    def compare(known: dict[str, Any], given: dict[str, Any], path: str) -> None:
        known = (known.get("$ref", "") and schema["$defs"].get(known["$ref"].rsplit("/", 1)[1], {})) or known
        if "properties" not in known:
            return
        assert known["properties"].keys() - {"global"} == given.keys(), path
        for key, inner in given.items():
            if isinstance(inner, dict):
                compare(known["properties"][key], inner, f"{path}.{key}")

    compare(schema, values, "values")


def test_every_key_of_the_values_is_explained_above_it() -> None:
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"\s*[A-Za-z][A-Za-z0-9]*:", line)]
    assert len(keys) > 150
    unexplained = [number for number in keys if not lines[number - 1].lstrip().startswith("# ")]
    assert [f"{number + 1}: {lines[number]}" for number in unexplained] == []
    # A key within braces would be one that no line explains; quantities of cpu and memory say what they are.
    hidden = [
        line.strip()
        for line in lines
        if not line.lstrip().startswith("#")
        and re.search(r"\{.*:.*\}", line)
        and not re.fullmatch(r"\s*(?:requests|limits): \{cpu: \S+, memory: \S+\}", line)
    ]
    assert hidden == []
