from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution

from equipoise import hardware
from equipoise.compression.channel_widths import ChannelWidths
from equipoise.compression.export import SUPPORTED, SUPPORTED_CAUSAL
from equipoise.compression.structure import structure_key
from equipoise.config import RunConfig
from equipoise.config.search import EngineName, Precision, SearchConfig
from equipoise.data import Layout
from equipoise.engines.widths import Widths
from equipoise.errors import ConfigError
from equipoise.search.shape import Shape, resolve_channels
from equipoise.search.space import Space, Structure, open_space


def unique(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=1, unique=True).map(tuple)


SEARCHES = st.builds(
    SearchConfig,
    depths=st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple),
    layers=unique(["first", "spread", "last"]),
    engines=unique(["torch", "onnxruntime", "openvino"]).map(lambda found: (*{*found, "onnxruntime"},)),
    precisions=unique(["fp32", "int8", "int8_dynamic"]),
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
    assert {Structure.of(anchor) for anchor in anchors} == set(space.structures.values())


def test_the_default_space_of_a_six_layer_teacher() -> None:
    space = Space(SearchConfig(), 6)
    assert {structure.layers for structure in space.structures.values()} == {
        (0, 1, 2, 3, 4, 5),
        (0, 1, 2),
        (0, 2, 5),
        (0, 1),
        (0, 5),
        (0,),
    }
    every = {(e, p) for e, found in SUPPORTED.items() for p in found}
    left = {("openvino", "int8_guarded"), ("openvino", "int8_qat")} | (
        set() if hardware.has_fp16() else {("openvino", "fp16")}
    )
    assert every - set(space.runtimes.values()) == left
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
    every = {(e, p) for e, found in SUPPORTED_CAUSAL.items() for p in found}
    assert set(causal.runtimes.values()) | {("openvino", "fp16")} == every
    assert not {precision for _, precision in others.runtimes.values()} & {"int8_weights", "int4_weights"}
    assert not {precision for _, precision in causal.runtimes.values()} & {"int8", "int8_dynamic"}
    # The teacher and each structure are tried at 8 bits first; the sampler decides about 4.
    assert {recipe.precision for recipe in causal.anchors() if recipe.engine == "openvino"} == {
        "int8_weights"
    }


@pytest.mark.parametrize(
    ("layout", "engines", "precision", "remedy"),
    [
        ("image", ("onnxruntime", "openvino"), "int4_weights", "use int8"),
        ("text", ("torch", "openvino"), "int8_weights", "use int8"),
        ("prompt", ("openvino",), "int8", "use int8_weights"),
        ("prompt", ("torch",), "int4_weights", "use bf16, or add openvino to search.engines"),
        ("words", ("onnxruntime",), "bf16", "use int8, or add torch or openvino to search.engines"),
        ("text", ("onnxruntime",), "int8_guarded", "use int8, or add openvino to search.engines"),
    ],
)
def test_a_precision_that_is_written_and_that_no_engine_has_is_refused_with_the_nearest(
    layout: Layout, engines: tuple[EngineName, ...], precision: Precision, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=r"no engine of search\.engines runs .* in it") as caught:
        Space(SearchConfig(engines=engines, precisions=("fp32", precision)), 6, layout=layout)
    assert (caught.value.where, caught.value.value, caught.value.remedy) == (
        "search.precisions",
        precision,
        remedy,
    )


def test_what_is_guarded_is_tried_where_it_is_named_and_is_no_anchor() -> None:
    space = Space(SearchConfig(precisions=("int8", "int8_guarded")), 6)
    assert ("openvino", "int8_guarded") in space.runtimes.values()
    assert {recipe.precision for recipe in space.anchors()} == {"fp32", "int8"}


def test_what_trains_for_int8_is_tried_where_it_is_named_and_refused_where_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch, space_of: Callable[..., Space]
) -> None:
    steps = written({"quantize": {"engine": "openvino", "precision": "int8_qat"}})
    recipe = space_of(steps).anchors()[1]
    assert (recipe.precision, recipe.distilled) == ("int8_qat", False)
    with pytest.raises(ConfigError, match="sharded") as caught:
        space_of(steps, training={"zero_stage": 3})
    assert caught.value.where == "compression.recipes"
    assert "zero_stage 2" in (caught.value.remedy or "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="C\\+\\+ compiler") as caught:
        space_of(steps)
    assert "int8_guarded" in (caught.value.remedy or "")


@pytest.mark.parametrize(("flags", "native"), [(["avx512_bf16"], False), (["avx512_fp16"], True)])
def test_fp16_is_tried_where_the_cpu_multiplies_it_and_refused_elsewhere(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], native: bool, space_of: Callable[..., Space]
) -> None:
    monkeypatch.setattr(hardware, "describe_hardware", lambda: {"flags": flags})
    assert (("openvino", "fp16") in Space(SearchConfig(), 6).runtimes.values()) is native
    asked = SearchConfig(precisions=("int8", "fp16"))
    steps = written({"quantize": {"engine": "openvino", "precision": "fp16"}})
    if native:
        assert ("openvino", "fp16") in Space(asked, 6).runtimes.values()
        assert space_of(steps).anchors()[1].precision == "fp16"
        return
    for build in (lambda: Space(asked, 6), lambda: space_of(steps)):
        with pytest.raises(ConfigError, match="does not multiply fp16 natively") as caught:
            build()
        assert str(caught.value.where).endswith("precision") or caught.value.where == "search.precisions"
        assert caught.value.remedy == "use bf16"


SHAPE = Shape(6, widths=Widths(heads=(12,) * 6, ffn=(1536,) * 6))


def test_narrower_structures_stand_beside_the_whole_ones() -> None:
    search = SearchConfig(depths=(2,), layers=("spread",), head_shares=(0.5,), ffn_shares=(0.25,))
    space = Space(search, 6, shape=SHAPE)
    assert len(space.structures) == 2 * 2 * 2
    points = [{"structure": s, "runtime": r} for s in space.structures for r in space.runtimes]
    recipes = [space.recipe(point) for point in points]
    assert [space.point(recipe) for recipe in recipes] == points
    assert len(set(recipes)) == len(points)
    narrowed = [recipe for recipe in recipes if recipe.narrowed]
    assert {recipe.heads for recipe in narrowed if recipe.depth == 2} == {None, (6, 6)}
    assert {recipe.ffn for recipe in narrowed if recipe.depth == 6} == {None, (384,) * 6}
    assert all(recipe.distilled for recipe in narrowed)
    assert space.anchors()[0] == space.teacher


def test_scores_make_no_difference_where_nothing_is_narrowed() -> None:
    search = SearchConfig(depths=(1,), ffn_shares=(0.5,), importance="magnitude")
    space = Space(search, 6, shape=SHAPE)
    assert {s.importance for s in space.structures.values() if s.ffn is None} == {"taylor"}
    assert {s.importance for s in space.structures.values() if s.ffn} == {"magnitude"}


@pytest.mark.parametrize(("share", "remedy"), [(0.3, "0.333333 (4 heads)"), (0.01, "0.0833333 (1 heads)")])
def test_a_share_that_is_no_whole_number_of_heads_is_refused_with_the_nearest(
    share: float, remedy: str
) -> None:
    with pytest.raises(ConfigError, match="no whole number of 12 heads") as caught:
        Space(SearchConfig(head_shares=(share,)), 6, shape=SHAPE)
    assert (caught.value.where, caught.value.value) == ("search.head_shares", share)
    assert remedy in caught.value.remedy


def test_a_teacher_whose_widths_are_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not known"):
        Space(SearchConfig(ffn_shares=(0.5,)), 6)
    with pytest.raises(ConfigError, match="no tokenizer"):
        Space(SearchConfig(vocabulary=("task",)), 6)


CNN = Shape(5, (0, 2), channels=ChannelWidths((32, 32, 64, 128), (1, 4, 4, 4), (0,)), kind="resnet")


def test_channels_are_left_out_of_stem_and_stages_alike() -> None:
    search = SearchConfig(depths=(3,), layers=("first",), channel_shares=(0.5, 0.25))
    space = Space(search, 5, CNN.required, layout="image", shape=CNN)
    found = {structure.channels for structure in space.structures.values()}
    assert found == {None, (16, 16, 32, 64), (8, 8, 16, 32)}
    assert len(space.structures) == 2 * 3
    points = [{"structure": s, "runtime": r} for s in space.structures for r in space.runtimes]
    recipes = [space.recipe(point) for point in points]
    assert [space.point(recipe) for recipe in recipes] == points
    assert all(recipe.distilled for recipe in recipes if recipe.channels)
    small = next(recipe for recipe in recipes if recipe.channels == (8, 8, 16, 32) and recipe.depth == 3)
    assert small.structure == "3 layers (0-2), channels 8/8/16/32"
    assert structure_key(small) == "layers-0-1-2-channels-8-8-16-32"


@given(share=st.floats(0.01, 1), counts=st.lists(st.integers(1, 512), min_size=2, max_size=6))
def test_a_share_of_channels_is_in_eights_and_leaves_shortcuts_alone(share: float, counts: list[int]) -> None:
    widths = ChannelWidths(tuple(counts), (1,) * len(counts), tuple(range(len(counts) - 1)))
    try:
        found = resolve_channels(share, Shape(2, channels=widths), "here")
    except ConfigError as error:
        near = float((error.remedy or "").split()[1].rstrip(","))
        found = resolve_channels(near, Shape(2, channels=widths), "here")
    kept = found or widths.counts
    assert all(1 <= few <= many and few % 8 in (0, many % 8) for few, many in zip(kept, counts, strict=True))
    assert widths.keeps_shortcuts(kept)


@pytest.mark.parametrize(
    ("wanted", "what", "remedy"),
    [
        ((16, 16, 32), "does not fit 32, 32, 64, 128", "4 numbers"),
        ((16, 16, 32, 129), "does not fit", "at most as many"),
        ((16, 16, 30, 64), "multiples", "[16, 16, 32, 64]"),
        ((8, 16, 32, 64), "shortcut", "equal numbers"),
    ],
)
def test_channels_that_a_config_cannot_say_are_refused(
    wanted: tuple[int, ...], what: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        resolve_channels(wanted, CNN, "compression.recipes.0.prune.channels")
    assert remedy in (caught.value.remedy or "")


def test_channels_of_what_has_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="channels of a bert are not known") as caught:
        resolve_channels(0.5, Shape(6, widths=SHAPE.widths, kind="bert"), "search.channel_shares")
    assert "heads and FFN neurons" in (caught.value.remedy or "")


def written(*steps: Any) -> dict[str, Any]:
    return {"recipes": [list(steps)]}


@pytest.fixture
def space_of(run_config: Callable[..., RunConfig], tiny_classifier: Path) -> Callable[..., Space]:
    """`space_of(compression)` over the tiny classifier: 2 layers of 2 heads and 64 neurons."""

    def build(compression: dict[str, Any], **changes: Any) -> Space:
        config = run_config(search={"depths": [1]}, compression=compression, **changes)
        return open_space(config, tiny_classifier, "text", "AutoModelForSequenceClassification")

    return build


def test_a_written_recipe_is_measured_right_after_the_teacher_and_is_its_own_record(
    space_of: Callable[..., Space],
) -> None:
    steps = (
        {"prune": {"layers": [1], "heads": 0.5, "ffn": [24], "vocabulary": "task"}},
        "distil",
        {"quantize": {"engine": "onnxruntime", "precision": "int8"}},
    )
    space = space_of(written(*steps))
    teacher, recipe = space.anchors()[:2]
    assert teacher == space.teacher
    assert (recipe.layers, recipe.heads, recipe.ffn, recipe.vocabulary) == ((1,), (1,), (24,), "task")
    assert recipe.distilled
    assert space.point(recipe)
    # From its record the same recipe comes again.
    assert space_of({"recipes": [recipe.steps]}).anchors()[1] == recipe


def test_zeros_are_a_structure_of_their_own_and_come_again_from_the_record(
    space_of: Callable[..., Space],
) -> None:
    steps = ({"prune": {"sparsity": 0.8}}, "distil", "quantize")
    space = space_of(written(*steps))
    recipe = space.anchors()[1]
    assert (recipe.sparsity, recipe.distilled, recipe.layers) == (0.8, True, (0, 1))
    assert recipe.structure == "2 layers (0,1), 80% zeros"
    assert space.recipe(space.point(recipe) or {}) == recipe
    assert space_of({"recipes": [recipe.steps]}).anchors()[1] == recipe
    assert "zeros-0.8" in structure_key(recipe) != structure_key(space.teacher)


def test_channels_come_again_from_the_record_and_rule_hidden_states_out(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    from transformers import ResNetConfig

    folder = tmp_path / "resnet"
    ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[2, 1]).save_pretrained(folder)

    def build(steps: Any, **changes: Any) -> Space:
        config = run_config(
            task="image_classification",
            data={"deduplicate": False},
            search={"depths": [3]},
            compression={"recipes": [steps]},
            **changes,
        )
        return open_space(config, folder, "image", "AutoModelForImageClassification")

    steps = [{"prune": {"channels": 0.5, "layers": [0, 2], "importance": "magnitude"}}, "distil", "quantize"]
    recipe = build(steps).anchors()[1]
    assert (recipe.channels, recipe.layers, recipe.importance) == ((8, 16, 32), (0, 2), "magnitude")
    assert build(recipe.steps).anchors()[1] == recipe
    with pytest.raises(ConfigError, match="fewer channels") as caught:
        build(steps, distillation={"hidden_weight": 0.5})
    assert caught.value.where == "distillation.hidden_weight"


def test_a_trimmed_teacher_needs_no_distillation(space_of: Callable[..., Space]) -> None:
    recipe = space_of(written({"prune": {"vocabulary": "task"}}, "quantize")).anchors()[1]
    assert not recipe.distilled
    assert not recipe.untouched
    assert (recipe.engine, recipe.precision) == ("openvino", "int8")
    assert "distil" not in [next(iter(step)) for step in recipe.steps]


@pytest.mark.parametrize(
    ("steps", "where", "what"),
    [
        ([{"prune": {"layers": [2]}}, "distil"], "prune.layers", "no layers of a teacher with 2"),
        ([{"prune": {"layers": [1, 0]}}, "distil"], "prune.layers", "no layers"),
        ([{"prune": {"heads": 0.4}}, "distil"], "prune.heads", "no whole number of 2 heads"),
        ([{"prune": {"heads": [2]}}, "distil"], "prune.heads", "does not fit layers of 2, 2"),
        ([{"prune": {"ffn": [64, 65]}}, "distil"], "prune.ffn", "does not fit layers of 64, 64"),
        ([{"prune": {"channels": 0.5}}, "distil"], "prune.channels", "channels of a bert are not known"),
        ([{"prune": {"ffn": 0.5}}, "quantize"], "recipes.0", "has to be distilled"),
        ([{"prune": {"sparsity": 0.5}}], "recipes.0", "has to be distilled"),
        (["distil", "quantize"], "recipes.0", "nothing is pruned"),
        (
            [{"quantize": {"engine": "torch", "precision": "int8"}}],
            "quantize.precision",
            "torch does not run a text classifier",
        ),
    ],
)
def test_a_written_recipe_that_cannot_be_is_refused_by_its_place(
    space_of: Callable[..., Space], steps: list[Any], where: str, what: str
) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        space_of(written(*steps))
    assert where in str(caught.value)
    assert str(caught.value.where).startswith("compression.recipes.0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "steps", [["quantize", "prune"], ["prune", "prune"], [{"prune": {}, "distil": {}}], [{}], ["melt"], []]
)
def test_steps_out_of_order_are_refused(space_of: Callable[..., Space], steps: list[Any]) -> None:
    with pytest.raises(ConfigError):
        space_of({"recipes": [steps]})


def test_heads_that_relations_do_not_divide_are_refused(space_of: Callable[..., Space]) -> None:
    steps = ({"prune": {"heads": 0.5}}, "distil")
    distillation = {"relation_weight": 1.0, "relation_heads": 32}
    with pytest.raises(ConfigError, match="does not divide the width 16"):
        space_of(written(*steps), distillation=distillation)
