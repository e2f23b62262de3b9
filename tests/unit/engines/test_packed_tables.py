"""Tables whose rows are unpacked as they are looked up answer as those that are unpacked whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset13 as ops

from equipoise.compression.export import export_model
from equipoise.engines import open_engine
from equipoise.engines.openvino_engine import MODEL_FILE, OpenVinoEngine
from equipoise.engines.packed_tables import look_up_packed
from equipoise.tasks.text_classification import TextClassification

ROWS, WIDTH = 300, 16
OPTIONS = {"INFERENCE_PRECISION_HINT": "f32"}
Numbers = np.ndarray[Any, Any]


def build(
    kind: Any = np.int8, scale_shape: tuple[int, int] = (ROWS, 1), axis: int = 0, shared: bool = False
) -> openvino.Model:
    draw = np.random.default_rng(0)
    integers = draw.integers(0, 100, (ROWS, WIDTH)).astype(kind)
    scales = draw.random(scale_shape).astype(np.float32)
    places = ops.parameter([-1, -1], np.int64, name="places")
    table = ops.multiply(ops.convert(ops.constant(integers), np.float32), ops.constant(scales))
    looked_up = ops.gather(table, places, ops.constant(np.int64(axis)))
    return openvino.Model([looked_up, ops.relu(table)] if shared else [looked_up], [places])


@pytest.fixture(scope="module")
def both() -> Callable[[Numbers], tuple[Numbers, Numbers]]:
    core, packed = openvino.Core(), build()
    assert look_up_packed(packed) == 1
    whole, rows = core.compile_model(build(), "CPU", OPTIONS), core.compile_model(packed, "CPU", OPTIONS)
    return lambda places: (whole({"places": places})[0].copy(), rows({"places": places})[0].copy())


@settings(max_examples=50, deadline=None)
@given(places=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=40))
def test_rows_are_the_same_to_the_last_bit(
    both: Callable[[Numbers], tuple[Numbers, Numbers]], places: list[int]
) -> None:
    whole, rows = both(np.array([places], dtype=np.int64))
    assert whole.shape == (1, len(places), WIDTH)
    assert np.array_equal(whole, rows)


@pytest.mark.parametrize(
    "other", [{"kind": np.int16}, {"scale_shape": (ROWS, WIDTH)}, {"axis": 1}, {"shared": True}], ids=str
)
def test_other_tables_are_left_as_they_are(other: dict[str, Any]) -> None:
    model = build(**other)
    before = [node.get_type_name() for node in model.get_ordered_ops()]
    assert look_up_packed(model) == 0
    assert [node.get_type_name() for node in model.get_ordered_ops()] == before


def test_a_quantized_model_holds_its_vocabulary_in_8_bits(
    tiny_classifier: Path, tmp_path: Path, tiny_task: TextClassification
) -> None:
    target = tmp_path / "int8"
    target.mkdir()
    export_model(
        tiny_classifier,
        target,
        engine="openvino",
        precision="int8",
        task=tiny_task,
        calibration=[tiny_task.encode(["where is my parcel", "refund"])] * 4,
        onnx_cache=tmp_path / "onnx",
    )
    vocabulary = tiny_task.tokenizer.get_vocab_size()
    as_it_is = openvino.Core().compile_model(str(target / MODEL_FILE), "CPU", OPTIONS)
    assert unpacked(as_it_is, vocabulary)
    engine = open_engine("openvino", target, "int8")
    assert isinstance(engine, OpenVinoEngine)
    assert not unpacked(engine.request.get_compiled_model(), vocabulary)
    inputs = tiny_task.encode(["the flight to oslo", "fee"])
    given_inputs = {name: inputs[name] for name in tiny_task.inputs}
    np.testing.assert_allclose(engine.run(given_inputs)["logits"], as_it_is(given_inputs)[0], atol=1e-5)


def unpacked(compiled: openvino.CompiledModel, vocabulary: int) -> bool:
    """Whether a table of the whole vocabulary is among the constants in fp32."""
    return any(
        node.get_rt_info()["layerType"].value == "Const"
        for node in compiled.get_runtime_model().get_ops()
        if node.get_output_partial_shape(0).is_static
        and list(node.get_output_shape(0))[:1] == [vocabulary]
        and len(node.get_output_shape(0)) == 2
        and node.get_output_shape(0)[1] > 1
        and node.get_element_type() == openvino.Type.f32
    )
