from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from equipoise.config import RunConfig, load_config, validate_config
from equipoise.errors import ConfigError

VALUES: dict[str, Any] = {
    "name": "tiny",
    "data": {"train": "a.csv", "test": "b.csv"},
    "model": {"teacher": "hf://org/model"},
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def put(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return put


def changed(path: str, value: Any) -> dict[str, Any]:
    """VALUES with one dotted key set; None removes it."""
    values = json.loads(json.dumps(VALUES))
    *sections, key = path.split(".")
    at = values
    for section in sections:
        at = at.setdefault(section, {})
    at[key] = value
    if value is None:
        del at[key]
    return dict(values)


def fault(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate_config(RunConfig, values, where="run.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_smallest_config_has_every_default(write: Callable[[str], Path]) -> None:
    config = load_config(write(yaml.safe_dump(VALUES)))
    assert config.run_folder == "runs/tiny"
    assert config.data.text_column == "text"
    assert config.search.engines == ("torch", "onnxruntime", "openvino")


def test_the_resolved_form_reads_back_as_itself() -> None:
    config = RunConfig.model_validate(VALUES)
    resolved = json.loads(json.dumps(config.model_dump(mode="json")))
    assert RunConfig.model_validate(resolved) == config
    assert RunConfig.model_validate(yaml.safe_load(yaml.safe_dump(resolved))) == config


def test_a_config_is_frozen() -> None:
    config = RunConfig.model_validate(VALUES)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.data.train = "c.csv"  # type: ignore[misc]


def test_it_has_a_json_schema_with_a_description_for_each_section() -> None:
    schema = RunConfig.model_json_schema()
    assert schema["additionalProperties"] is False
    assert all(definition.get("description") for definition in schema["$defs"].values())


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("traning", {}, "run.yaml: traning: unknown key (got {}); did you mean 'training'?"),
        ("data.tran", "x", "run.yaml: data.tran: unknown key (got 'x'); did you mean 'train'?"),
        ("cost.zzz", 1, "run.yaml: cost.zzz: unknown key (got 1); remove it, or see `equipoise init`"),
        ("data.test", None, "run.yaml: data.test: required key is missing; add it"),
        ("seed", "many", "run.yaml: seed: wrong value (got 'many'); input should be a valid integer"),
        ("seed", -1, "run.yaml: seed: wrong value (got -1); input should be greater than or equal to 0"),
        (
            "data.validation_share",
            0.5,
            "data.validation_share: wrong value (got 0.5); input should be less than",
        ),
        ("data", "a.csv", "run.yaml: data: wrong value (got 'a.csv')"),
        ("name", "Tiny Run", "run.yaml: name: wrong value (got 'Tiny Run')"),
        (
            "search.sampler",
            "grid",
            "run.yaml: search.sampler: wrong value (got 'grid'); input should be 'tpe'",
        ),
        ("search.engines", ["tensorrt"], "run.yaml: search.engines.0: wrong value"),
        ("search.engines", [], "run.yaml: search.engines: wrong value (got [])"),
        ("cost.rps", float("nan"), "run.yaml: cost.rps: wrong value (got nan)"),
        ("training.epochs", 0, "run.yaml: training.epochs: wrong value (got 0)"),
    ],
)
def test_a_mistake_is_one_line_with_path_value_and_remedy(path: str, value: Any, expected: str) -> None:
    assert expected in fault(changed(path, value))


def test_further_mistakes_are_counted() -> None:
    values = {**changed("seed", -1), "zzz": 1}
    assert "(and 1 more)" in fault(values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2", "run.yaml:1: not valid YAML"),
        ("name: x\ndata: {a: b: c}\n", "run.yaml:2: not valid YAML"),
        ("- a\n- b\n", "not a mapping of keys to values"),
        ("", "not a mapping of keys to values"),
        ("just text", "not a mapping of keys to values"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_yaml_mapping(text: str, expected: str, write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; write one with `equipoise init`"):
        load_config(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_config(tmp_path / "binary.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="too large"):
        load_config(tmp_path / "huge.yaml")
