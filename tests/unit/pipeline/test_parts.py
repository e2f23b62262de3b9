from __future__ import annotations

from typing import get_args

import pytest

from equipoise.cli import until
from equipoise.config import RunConfig
from equipoise.config.search import SearchConfig
from equipoise.errors import ConfigError
from equipoise.pipeline.parts import Part, first_student
from equipoise.search.shape import Shape
from equipoise.search.space import Space
from equipoise.search.written import written_recipe


def test_the_command_line_knows_every_part() -> None:
    assert tuple(until.Part) == get_args(Part)


def test_the_student_is_the_first_that_the_search_would_train() -> None:
    search = SearchConfig(depths=(1, 2), layers=("first", "spread"))
    assert first_student(Space(search, 6)).layers == (0, 1)


def test_a_recipe_of_the_config_goes_before_depths() -> None:
    config = RunConfig.model_validate(
        {
            "name": "a",
            "data": {"train": "a", "test": "b"},
            "model": {"teacher": "c"},
            "compression": {
                "recipes": [
                    [
                        {"prune": {"layers": [0, 3, 5]}},
                        {"distil": {}},
                        {"quantize": {"engine": "torch", "precision": "fp32"}},
                    ]
                ]
            },
        }
    )
    written = [written_recipe(config.compression.recipes[0], 0, Shape(6))]
    assert first_student(Space(config.search, 6, written=written)).layers == (0, 3, 5)


def test_without_a_student_one_is_told_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match=r"search\.depths: .*no student to distil.*below its 6 layers"):
        first_student(Space(SearchConfig(depths=(6,)), 6))
