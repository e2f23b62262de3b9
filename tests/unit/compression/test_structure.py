from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from equipoise.compression.structure import (
    check_stack,
    read_layers,
    recipe_hash,
    structure_key,
    student_layers,
)
from equipoise.errors import ConfigError, ModelError
from equipoise.runs import Recipe

RECIPE = Recipe(depth=2, layers=(0, 5), distilled=True, engine="openvino", precision="int8")


@pytest.mark.parametrize(
    ("teacher_depth", "depth", "choice", "layers"),
    [
        (6, 3, "first", (0, 1, 2)),
        (6, 3, "last", (3, 4, 5)),
        (6, 3, "spread", (0, 2, 5)),
        (12, 4, "spread", (0, 4, 7, 11)),
        (6, 2, "spread", (0, 5)),
        (6, 1, "first", (0,)),
        (6, 1, "spread", (0,)),
        (6, 1, "last", (5,)),
        (1, 1, "spread", (0,)),
    ],
)
def test_layers_that_are_kept(teacher_depth: int, depth: int, choice: str, layers: tuple[int, ...]) -> None:
    assert student_layers(teacher_depth, depth, choice) == layers


@given(teacher_depth=st.integers(1, 48), data=st.data())
def test_any_student_is_a_part_of_its_teacher_in_order(teacher_depth: int, data: st.DataObject) -> None:
    depth = data.draw(st.integers(1, teacher_depth))
    for choice in ("first", "spread", "last"):
        layers = student_layers(teacher_depth, depth, choice)
        assert len(layers) == depth
        assert list(layers) == sorted(set(layers))
        assert 0 <= layers[0] <= layers[-1] < teacher_depth
    if depth > 1:
        assert {0, teacher_depth - 1} <= set(student_layers(teacher_depth, depth, "spread"))
    assert student_layers(teacher_depth, teacher_depth, "spread") == tuple(range(teacher_depth))


@pytest.mark.parametrize("depth", [0, -1, 7])
def test_a_depth_that_the_teacher_has_not_is_named(depth: int) -> None:
    with pytest.raises(ConfigError, match="the teacher has 6 layers") as caught:
        student_layers(6, depth, "first")
    assert (caught.value.where, caught.value.value) == ("search.depths", depth)
    assert "1 to 6" in caught.value.remedy


def test_a_recipe_has_the_same_name_in_every_process() -> None:
    check = (
        "from equipoise.runs import Recipe; from equipoise.compression.structure import recipe_hash; "
        f"print(recipe_hash(Recipe.model_validate_json({RECIPE.model_dump_json()!r})))"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", check],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    # Written out: a changed name would orphan the candidates of every finished run folder.
    assert names == {recipe_hash(RECIPE)} == {"4075d786dbff"}


def test_every_part_of_a_recipe_is_in_its_name() -> None:
    others = [
        {"layers": (0, 4)},
        {"engine": "onnxruntime"},
        {"precision": "fp32"},
        {"distilled": False},
        {"depth": 3},
        {"heads": (6, 6)},
        {"ffn": (768, 768)},
        {"ffn": (768, 512)},
        {"importance": "magnitude"},
        {"vocabulary": "task"},
        {"target": "speedup 3"},
        {"channels": (8, 16)},
        {"recovery": 0.25},
    ]
    names = {recipe_hash(RECIPE), *(recipe_hash(RECIPE.model_copy(update=other)) for other in others)}
    assert len(names) == len(others) + 1


def test_a_structure_is_a_folder_name() -> None:
    assert structure_key(RECIPE) == "layers-0-5"
    narrow = RECIPE.model_copy(update={"heads": (6, 6), "ffn": (768, 512), "importance": "magnitude"})
    assert structure_key(narrow) == "layers-0-5-heads-6-ffn-768-512-magnitude"
    small = RECIPE.model_copy(update={"vocabulary": "task"})
    assert structure_key(small) == "layers-0-5-vocabulary"
    short = RECIPE.model_copy(update={"recovery": 0.25})
    assert structure_key(short) == "layers-0-5-recovery-0.25"


@pytest.mark.parametrize(
    ("config", "kind", "found"),
    [
        (transformers.GPT2Config(n_layer=3), "AutoModelForCausalLM", (3, ())),
        (transformers.BloomConfig(n_layer=4), "AutoModelForCausalLM", (4, ())),
        (transformers.LlamaConfig(num_hidden_layers=5), "AutoModelForCausalLM", (5, ())),
        (transformers.ViTConfig(num_hidden_layers=2), "AutoModelForImageClassification", (2, ())),
        (transformers.ResNetConfig(), "AutoModelForImageClassification", (16, (0, 3, 7, 13))),
    ],
    ids=["gpt2", "bloom", "llama", "vit", "resnet"],
)
def test_layers_are_counted_whatever_a_config_calls_them(
    config: Any, kind: str, found: tuple[int, tuple[int, ...]], tmp_path: Path
) -> None:
    config.save_pretrained(tmp_path)
    assert read_layers(tmp_path) == found
    check_stack(tmp_path, kind)


def test_a_build_whose_layers_are_not_known_is_refused_by_its_config(tmp_path: Path) -> None:
    transformers.DistilBertConfig(n_layers=2).save_pretrained(tmp_path)
    assert read_layers(tmp_path) == (2, ())
    with pytest.raises(ModelError, match="layers of a distilbert are not known") as caught:
        check_stack(tmp_path, "AutoModelForSequenceClassification")
    assert caught.value.where == "model.teacher"
    assert "search.depths to [2]" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"model_type": "nothing"}', "knows no model of the type"),
        ('{"model_type": "clvp"}', "names neither"),
    ],
)
def test_a_config_without_layers_is_refused(content: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=fault) as caught:
        read_layers(tmp_path)
    assert "\n" not in str(caught.value)
