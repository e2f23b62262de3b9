"""A causal language model for OpenVINO that keeps keys and values between its passes.

The exported model has the shape that OpenVINO's own tools give one: `input_ids`, `position_ids` and
`beam_idx` in, `logits` out, and for each layer a state of keys and one of values. It scores whole texts as
it stands, and `PagedModel` lets it write.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from equipoise import storage
from equipoise.engines.end_ids import end_ids_of
from equipoise.engines.generation import GENERATION_FILE
from equipoise.tasks import Task

_PAST, _PRESENT = "past_key_values", "present"


def export_causal(source: Path, target: Path, task: Task) -> None:
    """Write `model.xml`, `model.bin` (fp32) and `generation.json`.

    Args:
        source: torch model folder.
        target: where to; made if it is not there.
    """
    import openvino

    from equipoise.training.initialization import load_initial_model

    model = load_initial_model(str(source), task.model_class, None, None).eval()
    converted = _convert(model)
    target.mkdir(parents=True, exist_ok=True)
    facts = {
        "positions": getattr(model.config, "max_position_embeddings", None),
        "end_ids": list(end_ids_of(model)),
    }
    storage.put_json(str(target / GENERATION_FILE), facts)
    openvino.save_model(converted, target / "model.xml", compress_to_fp16=False)


def _convert(model: Any) -> Any:
    import openvino
    import torch
    from openvino._offline_transformations import apply_make_stateful_transformation

    ids = torch.ones((2, 3), dtype=torch.long)
    shapes = _state_shapes(model, ids)
    past = [torch.zeros((2, heads, 2, size)) for heads, size in shapes]
    with warnings.catch_warnings():
        # The converter traces with what torch and transformers now call deprecated.
        warnings.simplefilter("ignore")
        converted = openvino.convert_model(
            _with_states(model),
            example_input={
                "input_ids": ids,
                "position_ids": torch.arange(2, 5).expand(2, 3).contiguous(),
                "past": past,
            },
        )
    pairs = {}
    for number, (heads, size) in enumerate(shapes):
        kind = f"{number // 2}.{'value' if number % 2 else 'key'}"
        given, left = converted.inputs[2 + number], converted.outputs[1 + number]
        given.get_tensor().set_names({f"{_PAST}.{kind}"})
        left.get_tensor().set_names({f"{_PRESENT}.{kind}"})
        given.get_node().set_partial_shape(openvino.PartialShape([-1, heads, -1, size]))
        pairs[f"{_PAST}.{kind}"] = f"{_PRESENT}.{kind}"
    for given in converted.inputs[:2]:
        given.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
    converted.outputs[0].get_tensor().set_names({"logits"})
    converted.validate_nodes_and_infer_types()
    _let_rows_move(converted)
    apply_make_stateful_transformation(converted, pairs)
    _start_empty(converted)
    return converted


def _state_shapes(model: Any, ids: Any) -> list[tuple[int, int]]:
    """Heads and head size of the keys and values of each layer, in order; layers may differ."""
    import torch

    kept = _Collected()
    with torch.inference_mode():
        model(input_ids=ids, attention_mask=_causal_mask(ids, 0), cache=kept.cache, use_cache=True)
    return [(states.shape[1], states.shape[3]) for states in kept.states]


def _causal_mask(ids: Any, past: Any) -> Any:
    """What each new token looks at, (rows, 1, new, past and new); given one, transformers makes none itself.

    Every row has its own: one for all of them is misread by OpenVINO 2026.4 where it computes in bf16.
    """
    import torch

    rows, new = ids.shape
    mask = torch.arange(past + new) <= (past + torch.arange(new))[:, None]
    return mask.expand(rows, 1, -1, -1)


class _Collected:
    """A cache of transformers that puts new keys and values behind the given ones, and collects all."""

    def __init__(self, past: Any = None) -> None:
        import torch
        from transformers import Cache

        states: list[Any] = []

        class Joined(Cache):  # type: ignore[misc]  # transformers is not type-checked
            def update(self, keys: Any, values: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
                found: tuple[Any, ...] = (keys, values)
                if past is not None:
                    held = past[2 * layer_idx : 2 * layer_idx + 2]
                    found = tuple(torch.cat(pair, dim=2) for pair in zip(held, found, strict=True))
                states.extend(found)
                return found

        self.states = states
        self.cache = Joined(layers=[])


def _with_states(model: Any) -> Any:
    """A module of ids, positions and past keys and values that answers the logits and all keys and values."""
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, position_ids: Any, past: list[Any]) -> Any:
            kept = _Collected(past)
            outputs = self.model(
                input_ids=input_ids,
                attention_mask=_causal_mask(input_ids, past[0].shape[2]),
                position_ids=position_ids,
                cache=kept.cache,
                use_cache=True,
            )
            return (outputs.logits, *kept.states)

    return Wrapped()


def _let_rows_move(converted: Any) -> None:
    """Take `beam_idx`, the row whose state each row goes on from: OpenVINO knows a cache by it."""
    import openvino
    from openvino import opset13

    rows = opset13.parameter(openvino.PartialShape([-1]), dtype=np.int32, name="beam_idx")
    rows.output(0).get_tensor().set_names({"beam_idx"})
    states = [each for each in converted.inputs if each.get_any_name().startswith(_PAST)]
    converted.add_parameters([rows])
    for state in states:
        readers = state.get_target_inputs()
        moved = opset13.gather(state, rows, opset13.constant(0))
        for reader in readers:
            reader.replace_source_output(moved.output(0))
    converted.validate_nodes_and_infer_types()


def _start_empty(converted: Any) -> None:
    """Give each state its shape at the start: as many rows as there are, and no tokens."""
    from openvino import opset13

    shape = opset13.shape_of(converted.input("input_ids"), output_type="i64")
    rows = opset13.gather(shape, opset13.constant([0]), opset13.constant(0))
    for state in converted.get_ops():
        if state.get_type_name() == "ReadValue":
            _, heads, _, size = state.get_output_partial_shape(0)
            rest = np.array([heads.get_length(), 0, size.get_length()], np.int64)
            empty = opset13.concat([rows, opset13.constant(rest)], axis=0)
            zero = opset13.constant(0.0, dtype=state.get_output_element_type(0))
            state.set_arguments([opset13.broadcast(zero, empty)])
    converted.validate_nodes_and_infer_types()
