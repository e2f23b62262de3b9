"""From a torch model folder to the files that an engine opens."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.compression.accuracy_guard import Guard, quantize_guarded
from equipoise.compression.causal_export import export_causal
from equipoise.compression.quantization import (
    compress_openvino,
    quantize_onnx,
    quantize_onnx_dynamic,
    quantize_openvino,
)
from equipoise.data import Layout
from equipoise.engines.architectures import read_config
from equipoise.engines.generation import GENERATION_FILE
from equipoise.engines.widths import STRUCTURE_FILE
from equipoise.tasks import Arrays, Task
from equipoise.training.fake_quantizers import PLACES_FILE

ONNX_FILE = "model.onnx"
SUPPORTED: dict[str, tuple[str, ...]] = {
    "torch": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "int8", "int8_dynamic"),
    "openvino": ("fp32", "bf16", "fp16", "int8_guarded", "int8_qat", "int8"),
}
"""Precisions that each engine can be given."""

SUPPORTED_CAUSAL: dict[str, tuple[str, ...]] = {
    "torch": ("fp32", "bf16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16", "fp16", "int4_weights", "int8_weights"),
}
"""Of a causal language model: its weights alone are quantized, for they are what it waits for."""


def supported(layout: Layout) -> dict[str, tuple[str, ...]]:
    """Precisions that each engine can be given for models over such rows; the last is the usual pick."""
    return SUPPORTED_CAUSAL if layout == "prompt" else SUPPORTED


def nearest_precision(wanted: str, able: Sequence[str]) -> str:
    """Of those that there are, the one of the nearest number of bits, and of the nearest kind among them."""
    bits = {"fp32": 32, "bf16": 16, "fp16": 16}

    def distance(name: str) -> tuple[int, bool, bool]:
        fewer = [bits.get(each, 4 if each.startswith("int4") else 8) for each in (wanted, name)]
        # The number of bits; then weights alone for weights alone; then the plain kind.
        return abs(fewer[0] - fewer[1]), ("weights" in wanted) != ("weights" in name), name != "int8"

    return min(able, key=distance)


def export_model(
    source: Path,
    target: Path,
    *,
    engine: str,
    precision: str,
    task: Task,
    calibration: Sequence[Arrays],
    onnx_cache: Path,
    guard: Guard | None = None,
) -> tuple[str, ...]:
    """Write `target` for an engine and a precision.

    Args:
        source: torch model folder (config.json, model.safetensors).
        target: an empty folder.
        calibration: encoded batches that int8 activation ranges are read from.
        onnx_cache: where the structure's fp32 graph is kept between precisions.
        guard: what `int8_guarded` is held against; without one it is plain int8, which is as fast or faster.
            So is `int8_qat` of a source that was not trained with quantizers.

    Returns:
        Operations that int8 spares.
    """
    if engine == "torch":
        _export_torch(source, target, precision)
        return ()
    if engine == "openvino" and task.layout == "prompt":
        _export_writer(source, target, precision, task, onnx_cache)
        return ()
    if precision == "int8_qat" and (source / PLACES_FILE).is_file():
        _export_quantized(source, target, task)
        return ()
    graph = onnx_cache / ONNX_FILE
    if not graph.is_file():
        _export_onnx(source, onnx_cache, task)
    if engine == "onnxruntime":
        if precision == "int8":
            quantize_onnx(graph, target / ONNX_FILE, calibration)
        elif precision == "int8_dynamic":
            quantize_onnx_dynamic(graph, target / ONNX_FILE)
        else:
            shutil.copyfile(graph, target / ONNX_FILE)
        return ()
    import openvino

    model = openvino.convert_model(graph)
    spared: tuple[str, ...] = ()
    if precision == "int8_guarded" and guard is not None:
        guarded = quantize_guarded(model, calibration, guard, transformer=_is_transformer(source))
        model, spared = guarded.model, guarded.spared
    elif precision in ("int8", "int8_guarded", "int8_qat"):
        model = quantize_openvino(model, calibration, transformer=_is_transformer(source))
    openvino.save_model(model, target / "model.xml", compress_to_fp16=precision in ("bf16", "fp16"))
    return spared


def _export_writer(source: Path, target: Path, precision: str, task: Task, cache: Path) -> None:
    """A language model that keeps keys and values, converted once for all its precisions."""
    import openvino

    if not (cache / GENERATION_FILE).is_file():
        with tempfile.TemporaryDirectory(dir=cache.parent) as scratch:
            export_causal(source, Path(scratch) / "model", task)
            cache.mkdir(parents=True, exist_ok=True)
            for name in ("model.bin", "model.xml", GENERATION_FILE):
                (Path(scratch) / "model" / name).replace(cache / name)
    model = openvino.Core().read_model(str(cache / "model.xml"))
    if precision in ("int8_weights", "int4_weights"):
        model = compress_openvino(model, precision)
    openvino.save_model(model, target / "model.xml", compress_to_fp16=precision in ("bf16", "fp16"))
    shutil.copyfile(cache / GENERATION_FILE, target / GENERATION_FILE)


def _export_quantized(source: Path, target: Path, task: Task) -> None:
    """Write the OpenVINO model of a source that was trained with quantizers, int8 where they stand."""
    import warnings

    import openvino
    import torch

    from equipoise.training.fake_quantizers import read_quantizers
    from equipoise.training.initialization import load_initial_model

    names = list(task.inputs)
    encoded = task.encode(task.examples())
    example = {name: torch.from_numpy(np.ascontiguousarray(encoded[name])) for name in names}
    model = read_quantizers(load_initial_model(str(source), task.model_class, None, None), source)
    with warnings.catch_warnings(), torch.no_grad():
        # The converter traces with what torch and transformers now call deprecated, and finds that rounding
        # after a trace goes the other way here and there.
        warnings.simplefilter("ignore")
        wrapped = _LogitsOnly(model, names, causal=False).eval()
        converted = openvino.convert_model(wrapped, example_input=tuple(example.values()))
    for port, name in zip(converted.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    openvino.save_model(converted, target / "model.xml", compress_to_fp16=False)


def _is_transformer(source: Path) -> bool:
    return hasattr(read_config(source), "num_attention_heads")


def _export_torch(source: Path, target: Path, precision: str) -> None:
    for name in ("config.json", STRUCTURE_FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    weights = target / "model.safetensors"
    if precision == "fp32":
        shutil.copyfile(source / "model.safetensors", weights)
        return
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(source / "model.safetensors")
    save_file(
        {name: value.to(torch.bfloat16) for name, value in state.items()}, weights, metadata={"format": "pt"}
    )


def _export_onnx(source: Path, cache: Path, task: Task) -> None:
    """Trace the model once into fp32 ONNX with dynamic batch and length."""
    import warnings

    import torch

    from equipoise.training.initialization import load_initial_model

    model = load_initial_model(str(source), task.model_class, None, None).eval()
    example = task.encode(task.examples())
    names = list(task.inputs)
    axis = {0: "batch", 1: "length"} if task.ragged else {0: "batch"}
    per_place = task.ragged and task.layout in ("words", "prompt")
    axes = dict.fromkeys(names, axis) | {"logits": axis if per_place else {0: "batch"}}
    cache.mkdir(parents=True, exist_ok=True)
    # A name of its own: another candidate of the structure may be exported beside it.
    staged = cache / f".tmp-{uuid.uuid4().hex}-{ONNX_FILE}"
    with warnings.catch_warnings():
        # The tracing exporter warns of its successor, which takes five times as long for this model.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _LogitsOnly(model, names, causal=task.layout == "prompt"),
            tuple(torch.from_numpy(np.ascontiguousarray(example[name])) for name in names),
            str(staged),
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    staged.replace(cache / ONNX_FILE)


def _LogitsOnly(model: Any, names: Sequence[str], causal: bool) -> Any:  # noqa: N802
    """A module of positional inputs that answers the logits alone.

    A causal model is given a mask of ones: without any, transformers looks for sequences that were
    packed into one row, by operators that do not export.
    """
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            named: dict[str, Any] = dict(zip(names, values, strict=True))
            if causal:
                named |= {"attention_mask": torch.ones_like(named["input_ids"]), "use_cache": False}
            logits: torch.Tensor = self.model(**named).logits
            return logits

    return Wrapped()
