"""The model a training starts from: pretrained, or chosen layers of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from equipoise.engines.architectures import find_class
from equipoise.engines.narrowing import find_stack, load_narrowed, put_widths
from equipoise.engines.widths import STRUCTURE_FILE
from equipoise.errors import ModelError
from equipoise.training.batch_norm import widen_batch_norms
from equipoise.training.initial_weights import load_weights
from equipoise.training.residual_blocks import keep_blocks


def load_initial_model(
    folder: str, model_class: str, labels: int | None, layers: Sequence[int] | None
) -> nn.Module:
    """Load a model in fp32.

    Args:
        folder: a transformers model folder with safetensors.
        model_class: the class of transformers that loads it, such as AutoModelForSequenceClassification.
        labels: size of a new classification head; None keeps the one that is there.
        layers: layers to keep, in this order; None keeps all.

    Raises:
        ModelError: the folder's model has no such layers, or weights beside the head are missing or do not
            fit its config.
    """
    model: Any
    if labels is None and (Path(folder) / STRUCTURE_FILE).is_file():
        model = load_narrowed(Path(folder), find_class(model_class), torch.float32)
    else:
        model = load_weights(Path(folder), model_class, labels)
    if layers is not None:
        keep_blocks(model, layers) if hasattr(model.config, "depths") else keep_layers(model, layers)
    widen_batch_norms(model)
    loaded: nn.Module = model
    return loaded


def save_model(model: Any, folder: Path) -> None:
    """Write config, weights and, where layers differ from what the config can say, their widths."""
    put_widths(model, folder)
    model.save_pretrained(folder, safe_serialization=True)


def keep_layers(model: Any, layers: Sequence[int]) -> None:
    """Keep the given layers of a transformer and set its config to match."""
    owner, name = find_stack(model)
    stack = getattr(owner, name)
    missing = [index for index in layers if index >= len(stack)]
    if missing:
        raise ModelError(
            f"has {len(stack)} layers", where="layers", value=missing, remedy=f"use 0 to {len(stack) - 1}"
        )
    kept = nn.ModuleList([stack[index] for index in layers])
    setattr(owner, name, kept)
    # Each layer knows the place of its keys and values in the cache; configs may list a kind a layer.
    for place, layer in enumerate(kept):
        module: Any
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = place
    kinds = getattr(model.config, "layer_types", None)
    if kinds:
        model.config.layer_types = [kinds[index] for index in layers]
    model.config.num_hidden_layers = len(layers)


def freeze_embeddings(model: Any) -> list[str]:
    """Stop training of the embedding tables; returns the names of what is frozen."""
    frozen = []
    embeddings = getattr(model.base_model, "embeddings", None) or model.get_input_embeddings()
    tables = {id(p) for p in embeddings.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in tables:
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen
