"""A causal language model in OpenVINO whose keys and values lie in pages.

OpenVINO's own transformation puts its paged attention (Kwon et al., 2023, "vLLM") in place of the attention
and the state of an exported model. One pass then takes tokens of any number of sequences, new prompts and
single tokens alike, one after another without padding; each sequence's pages may lie anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13
from openvino._offline_transformations import paged_attention_transformation

from equipoise.engines.generation import GENERATION_FILE
from equipoise.engines.openvino_engine import MODEL_FILE, compile_options

PAGE_TOKENS = 32
"""Tokens of a page: what OpenVINO's CPU kernels are made for."""
_WANTED = "wanted"
_BEHIND_HEAD = ("Convert", "Add", "Multiply", "Divide", "Tanh")
"""What may stand between the last matrix product and the logits."""


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one sequence that a pass reads."""

    ids: Sequence[int]
    past: int
    """Tokens of the sequence that were read before."""
    pages: Sequence[int]
    """Its pages in order; only as many are looked at as its tokens fill."""


class PagedModel:
    """A compiled model and its pages; one pass at a time.

    Args:
        folder: `model.xml` of `export_causal`, and `generation.json`.
        precision: of the bundle.
        threads: that a pass takes.
        max_cached_tokens: keys and values that there is room for, in tokens.
    """

    def __init__(self, folder: Path, precision: str, threads: int, max_cached_tokens: int) -> None:
        held = json.loads((folder / GENERATION_FILE).read_text(encoding="utf-8"))
        self.positions: int | None = held["positions"]
        self.end_ids: tuple[int, ...] = tuple(held["end_ids"])
        self.pages = max_cached_tokens // PAGE_TOKENS
        core = openvino.Core()
        model = core.read_model(str(folder / MODEL_FILE))
        paged_attention_transformation(model)
        _want_some(model)
        compiled = core.compile_model(model, "CPU", compile_options(core, precision, threads))
        self._request = compiled.create_infer_request()
        # Held here: the tensors only point to it.
        self._memory = [
            _new_pages(each, self.pages) for each in compiled.inputs if "_cache." in each.any_name
        ]
        for name, _, tensor in self._memory:
            self._request.set_tensor(name, tensor)

    def forward(self, parts: Sequence[Part]) -> NDArray[np.float32]:
        """Logits over the vocabulary after the last token of each part; (parts, vocabulary)."""
        ids: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        pages: list[int] = []
        begins, page_begins = [0], [0]
        for part in parts:
            end = part.past + len(part.ids)
            ids.extend(part.ids)
            positions.extend(range(part.past, end))
            wanted.append(len(ids) - 1)
            begins.append(len(ids))
            pages.extend(part.pages[: pages_of(end)])
            page_begins.append(len(pages))
        longest = max(part.past + len(part.ids) for part in parts)
        results = self._request.infer(
            {
                "input_ids": np.array(ids, np.int64),
                "position_ids": np.array(positions, np.int64),
                "past_lens": np.array([part.past for part in parts], np.int32),
                "subsequence_begins": np.array(begins, np.int32),
                "block_indices": np.array(pages, np.int32),
                "block_indices_begins": np.array(page_begins, np.int32),
                "max_context_len": np.array(longest, np.int32),
                _WANTED: np.array(wanted, np.int64),
            }
        )
        found: NDArray[np.float32] = results[0].reshape(len(parts), -1).astype(np.float32)
        return found


def pages_of(tokens: int) -> int:
    """Pages that so many tokens fill."""
    return -(-tokens // PAGE_TOKENS)


def _want_some(model: Any) -> None:
    """Take a list of places, and compute the logits after the tokens there alone.

    Of a prompt only the last token's are looked at, and the vocabulary is the widest layer of all.

    Raises:
        RuntimeError: the model does not end in a product with its vocabulary.
    """
    node = model.output(0).get_node().input_value(0).get_node()
    while node.get_type_name() in _BEHIND_HEAD:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "MatMul":
        raise RuntimeError(
            f"the model ends in {node.get_type_name()}, and not in a product with its vocabulary"
        )
    places = opset13.parameter([-1], dtype=np.int64, name=_WANTED)
    places.output(0).get_tensor().set_names({_WANTED})
    hidden = opset13.gather(node.input_value(0), places, opset13.constant(0))
    node.input(0).replace_source_output(hidden.output(0))
    model.add_parameters([places])
    model.validate_nodes_and_infer_types()


def _new_pages(given: Any, count: int) -> tuple[str, NDArray[Any], openvino.Tensor]:
    """Room for a layer's keys or values; the system gives the memory when a page is first written to."""
    kind = given.get_element_type()
    shape = [count, *(dimension.get_length() for dimension in list(given.get_partial_shape())[1:])]
    if shape[2] != PAGE_TOKENS:
        raise RuntimeError(f"pages of {shape[2]} tokens; {PAGE_TOKENS} are planned for")
    # Zeros: whatever else lay there could be no number.
    memory = np.zeros(int(np.prod(shape)) * kind.size, np.uint8)
    tensor = openvino.Tensor(memory, openvino.Shape(shape), kind)
    return given.any_name, memory, tensor
