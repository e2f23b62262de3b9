"""PyTorch eager: the reference that every other engine is held against."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from equipoise.engines.architectures import find_class, read_config
from equipoise.engines.narrowing import load_narrowed
from equipoise.engines.widths import STRUCTURE_FILE
from equipoise.tasks import Arrays

# Nothing is ever fetched when a bundle is opened.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

LOAD_FAULTS: tuple[type[Exception], ...] = (SafetensorError,)
"""What a damaged model raises beside the built-in errors."""


class TorchEngine:
    """A transformers model in eager mode."""

    def __init__(self, model: torch.nn.Module, threads: int) -> None:
        self.model = model.eval()
        self.dtype = next(model.parameters()).dtype
        torch.set_num_threads(threads)

    def run(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = self.model(**{name: self._given(array) for name, array in inputs.items()})
        return {"logits": outputs.logits.float().numpy()}

    def _given(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def open_model(folder: Path, precision: str, threads: int) -> TorchEngine:
    """Load `config.json`, which names the model's class, and `model.safetensors`; fp32 or bf16.

    A narrowed model has a `structure.json` too.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    config = read_config(folder)
    [name] = config.architectures
    if (folder / STRUCTURE_FILE).is_file():
        return TorchEngine(load_narrowed(folder, find_class(name), dtype), threads)
    model = find_class(name).from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    return TorchEngine(model, threads)
