from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution

from equipoise.compression.export import SUPPORTED, SUPPORTED_CAUSAL
from equipoise.config.search import SearchConfig
from equipoise.errors import ConfigError
from equipoise.search.space import Space


def unique(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=1, unique=True).map(tuple)


SEARCHES = st.builds(
    SearchConfig,
    depths=st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple),
    layers=unique(["first", "spread", "last"]),
    engines=unique(["torch", "onnxruntime", "openvino"]),
    precisions=unique(["fp32", "bf16", "int8", "int8_dynamic"]),
)


@given(search=SEARCHES, teacher_depth=st.integers(6, 12))
def test_every_point_is_a_recipe_of_its_own_and_back(search: SearchConfig, teacher_depth: int) -> None:
    space = Space(search, teacher_depth)
    points = [{"structure": s, "runtime": r} for s in space.structures for r in space.runtimes]
    recipes = [space.recipe(point) for point in points]
    assert len(set(recipes)) == len(points) == space.size
    assert [space.point(recipe) for recipe in recipes] == points
    for recipe in recipes:
        assert recipe.precision in SUPPORTED[recipe.engine]
        assert recipe.depth == len(recipe.layers)
        assert recipe.distilled is (recipe.depth < teacher_depth)


@given(search=SEARCHES, teacher_depth=st.integers(6, 12))
def test_anchors_are_points_once_each_and_the_teacher_first(search: SearchConfig, teacher_depth: int) -> None:
    space = Space(search, teacher_depth)
    anchors = space.anchors()
    assert anchors[0] == space.teacher
    assert len(set(anchors)) == len(anchors) <= space.size
    assert all(space.point(anchor) for anchor in anchors)
    assert {anchor.layers for anchor in anchors} == set(space.structures.values())


def test_the_default_space_of_a_six_layer_teacher() -> None:
    space = Space(SearchConfig(), 6)
    assert set(space.structures.values()) == {
        (0, 1, 2, 3, 4, 5),
        (0, 1, 2),
        (0, 2, 5),
        (0, 1),
        (0, 5),
        (0,),
    }
    assert set(space.runtimes.values()) == {(e, p) for e, found in SUPPORTED.items() for p in found}
    assert not space.teacher.distilled
    assert (space.teacher.engine, space.teacher.precision) == ("torch", "fp32")


def test_the_sampler_sees_flat_categories() -> None:
    space = Space(SearchConfig(depths=(1,), engines=("openvino",), precisions=("int8",)), 6)
    found = space.distributions()
    assert all(isinstance(value, CategoricalDistribution) for value in found.values())
    assert found["runtime"].choices == ("torch-fp32", "openvino-int8")
    assert set(found["structure"].choices) == {"0,1,2,3,4,5", "0"}


def test_the_teacher_in_torch_is_always_in() -> None:
    space = Space(SearchConfig(engines=("onnxruntime",), precisions=("int8",)), 6)
    assert space.point(space.teacher)


def test_a_recipe_of_another_space_has_no_point() -> None:
    wide, narrow = Space(SearchConfig(), 6), Space(SearchConfig(engines=("torch",), depths=(1,)), 6)
    outside = [recipe for recipe in wide.anchors() if narrow.point(recipe) is None]
    assert {recipe.engine for recipe in outside} >= {"onnxruntime", "openvino"}


def test_a_student_deeper_than_its_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match="the teacher has 2 layers") as caught:
        Space(SearchConfig(depths=(1, 3)), 2)
    assert caught.value.where == "search.depths"


def test_weights_alone_are_quantized_of_language_models_and_of_no_others() -> None:
    causal, others = Space(SearchConfig(), 6, layout="prompt"), Space(SearchConfig(), 6, layout="words")
    assert set(causal.runtimes.values()) == {(e, p) for e, found in SUPPORTED_CAUSAL.items() for p in found}
    assert not {precision for _, precision in others.runtimes.values()} & {"int8_weights", "int4_weights"}
    assert not {precision for _, precision in causal.runtimes.values()} & {"int8", "int8_dynamic"}
    # The teacher and each structure are tried at 8 bits first; the sampler decides about 4.
    assert {recipe.precision for recipe in causal.anchors() if recipe.engine == "openvino"} == {
        "int8_weights"
    }
