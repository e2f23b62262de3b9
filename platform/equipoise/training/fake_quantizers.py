"""Quantization-aware training: nncf's fake quantizers on a torch model, and in files of their own.

The quantizers round what goes into each product to 256 levels on the way forward and let gradients through
on the way back (Jacob et al., 2018), so that the weights learn to live with it. nncf hooks them in beside the
model's own modules: names of weights stay what they are, and the weights' file is that of a plain model.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equipoise import storage
from equipoise.training.compiled_ops import BUILD_S, ROUNDING, loading_alone
from equipoise.training.examples import Examples, take_batch

PLACES_FILE = "quantizers.json"
LEVELS_FILE = "quantizers.safetensors"
_PREFIX = "__nncf_hooks."
_BATCHES, _BATCH_ROWS = 12, 16


def add_quantizers(model: Any, examples: Examples, seed: int) -> Any:
    """The model with fake quantizers, whose ranges are read from seeded rows; every rank gets the same.

    Dropout is taken out: its noise would be rounded along with what it falls on.
    """
    import nncf
    import numpy as np
    import torch

    drawn = np.random.default_rng([seed, 12]).permutation(len(examples))[: _BATCHES * _BATCH_ROWS]
    batches = [
        take_batch(examples, np.sort(drawn[start : start + _BATCH_ROWS]), "cpu", torch.float32).inputs
        for start in range(0, len(drawn), _BATCH_ROWS)
    ]
    with _ready():
        quantized: Any = nncf.quantize(
            model.eval(),
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER if _is_transformer(model) else None,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            # Both would move the weights to suit the quantizers: without these they were no model any more.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=True,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
            ),
        )
    for module in quantized.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return quantized


def split_quantizers(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's own weights, and the levels of the quantizers."""
    own = {name: value for name, value in state.items() if not name.startswith(_PREFIX)}
    return own, {name: value for name, value in state.items() if name.startswith(_PREFIX)}


def write_quantizers(model: Any, levels: dict[str, Any], folder: Path) -> None:
    """Write where the quantizers stand, and their levels."""
    from nncf.torch import get_config
    from safetensors.torch import save_file

    storage.put_json(str(folder / PLACES_FILE), get_config(model))
    save_file(levels, folder / LEVELS_FILE, metadata={"format": "pt"})


def read_quantizers(model: Any, folder: Path) -> Any:
    """The plain model of a folder with the quantizers that stand beside it."""
    from nncf.torch import load_from_config
    from safetensors.torch import load_file

    with _ready():
        quantized: Any = load_from_config(model, storage.read_json(str(folder / PLACES_FILE)))
    _, unknown = quantized.load_state_dict(load_file(folder / LEVELS_FILE), strict=False)
    if unknown:
        raise ValueError(f"quantizers of another model: {unknown[:3]}")
    return quantized.eval()


def _is_transformer(model: Any) -> bool:
    return hasattr(model.config, "num_attention_heads")


@contextmanager
def _ready() -> Iterator[None]:
    """Without nncf's log, and with its rounding loaded, which is built once a machine."""
    import nncf
    import torch
    from nncf.torch.quantization.extensions import QuantizedFunctionsCPULoader

    os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", str(BUILD_S))
    logger = logging.getLogger("nncf")
    level = logger.level
    nncf.set_log_level(logging.ERROR)
    try:
        if not torch.cuda.is_available():
            with loading_alone(ROUNDING):
                QuantizedFunctionsCPULoader.load()
        yield
    finally:
        logger.setLevel(level)
