"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path

import openvino

from equipoise.tasks import Arrays

MODEL_FILE = "model.xml"

LOAD_FAULTS: tuple[type[Exception], ...] = ()
"""What a damaged model raises beside the built-in errors; OpenVINO raises RuntimeError."""


class OpenVinoEngine:
    """One compiled model and its request."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self.request = compiled.create_infer_request()

    def run(self, inputs: Arrays) -> Arrays:
        results = self.request.infer(inputs, share_inputs=True)
        return {"logits": results[0].copy()}


def open_model(folder: Path, precision: str, threads: int) -> OpenVinoEngine:
    """Load `model.xml` and `model.bin`, mapped into memory.

    The inference precision is always stated: left alone, OpenVINO runs bf16 wherever the CPU has
    AMX, and the same bundle would answer differently on different machines.
    """
    core = openvino.Core()
    compiled = core.compile_model(
        str(folder / MODEL_FILE),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _hint(core, precision),
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Over compressed weights activations would be quantized too, in groups that depend on the
            # batch: a row's answer would change with its neighbours.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        },
    )
    return OpenVinoEngine(compiled)


def _hint(core: openvino.Core, precision: str) -> str:
    """What to compute in. Asked for fp16 where the CPU has none, OpenVINO would take bf16."""
    if precision == "fp16" and "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "f16"
    return "bf16" if precision == "bf16" else "f32"
