"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from equipoise.engines.buckets import ROWS
from equipoise.engines.packed_tables import look_up_packed
from equipoise.tasks import Arrays

MODEL_FILE = "model.xml"

KERNELS_KEPT = 512
"""Of each kind of operation; a text model of a hundred shapes has about as many. OpenVINO's own bound is
5,000, and with lengths and numbers of rows as they come a replica grew by megabytes with each new pair."""

LOAD_FAULTS: tuple[type[Exception], ...] = ()
"""What a damaged model raises beside the built-in errors; OpenVINO raises RuntimeError."""


class OpenVinoEngine:
    """One compiled model and its request."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self.request = compiled.create_infer_request()
        self._keeps_state = bool(self.request.query_state())

    def run(self, inputs: Arrays) -> Arrays:
        if self._keeps_state:
            # A model that could go on from its last tokens, asked for whole rows.
            self.request.reset_state()
            inputs = inputs | _from_the_start(inputs["input_ids"])
        rows = len(next(iter(inputs.values())))
        results = self.request.infer(_rounded_up(inputs, rows), share_inputs=True)
        return {"logits": results[0][:rows].copy()}


def open_model(folder: Path, precision: str, threads: int) -> OpenVinoEngine:
    """Load `model.xml` and `model.bin`, mapped into memory."""
    core = openvino.Core()
    model = core.read_model(str(folder / MODEL_FILE))
    look_up_packed(model)
    return OpenVinoEngine(core.compile_model(model, "CPU", compile_options(core, precision, threads)))


def compile_options(core: openvino.Core, precision: str, threads: int) -> dict[str, Any]:
    """How models are compiled.

    The inference precision is always stated: left alone, OpenVINO runs bf16 wherever the CPU has
    AMX, and the same bundle would answer differently on different machines. Likewise the precision of keys
    and values, which would be 8 bits.
    """
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {
        "INFERENCE_PRECISION_HINT": _hint(able, precision),
        "KV_CACHE_PRECISION": "bf16" if precision == "bf16" and "BF16" in able else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Over compressed weights activations would be quantized too, in groups that depend on the
        # batch: a row's answer would change with its neighbours.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "CPU_RUNTIME_CACHE_CAPACITY": KERNELS_KEPT,
    }


def _hint(able: Sequence[str], precision: str) -> str:
    """What to compute in. Asked for fp16 where the CPU has none, OpenVINO would take bf16."""
    if precision == "fp16" and "FP16" in able:
        return "f16"
    return "bf16" if precision == "bf16" else "f32"


def _rounded_up(inputs: Arrays, rows: int) -> Arrays:
    """As many texts as the next of ROWS, the last one repeated.

    Images are left as they are: one costs more than a kernel does.
    """
    wanted = next((number for number in ROWS if number >= rows), rows)
    if wanted == rows or "input_ids" not in inputs:
        return inputs
    chosen = np.minimum(np.arange(wanted), rows - 1)
    return {name: array[chosen] for name, array in inputs.items()}


def _from_the_start(ids: NDArray[np.int64]) -> Arrays:
    """Places and rows of whole texts."""
    rows, length = ids.shape
    return {
        "position_ids": np.ascontiguousarray(np.broadcast_to(np.arange(length), (rows, length))),
        "beam_idx": np.arange(rows, dtype=np.int32),
    }
