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
