"""Heads and neurons of a transformer: found, taken away for real, and a narrowed model loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from equipoise.engines.architectures import read_config
from equipoise.engines.widths import STRUCTURE_FILE, Widths
from equipoise.errors import ModelError

_STACKS = (("encoder", "layer"), ("", "layers"), ("", "h"))
"""Where transformers keep their layers: BERT; ViT, Llama and its kin; GPT-2."""


@dataclass(frozen=True)
class LayerParts:
    """The matrices of one layer that its heads and its neurons are rows and columns of.

    `rows` of a head lie in each of `projections`, its columns in `joined`; a neuron is a row of each of
    `expanding` and a column of `contracting`.
    """

    attention: Any
    head_size: int
    projections: tuple[nn.Linear, ...]
    joined: nn.Linear
    expanding: tuple[nn.Linear, ...]
    contracting: nn.Linear

    @property
    def heads(self) -> int:
        """Heads, groups of them where they share keys and values."""
        return min(linear.out_features for linear in self.projections) // self.head_size

    @property
    def ffn(self) -> int:
        """Neurons."""
        return self.contracting.in_features


_BUILDS = (
    # BERT and its kin
    (
        "attention.self",
        ("query", "key", "value"),
        "attention.output.dense",
        ("intermediate.dense",),
        "output.dense",
    ),
    # ViT
    ("attention", ("q_proj", "k_proj", "v_proj"), "attention.o_proj", ("mlp.fc1",), "mlp.fc2"),
    # Llama and its kin
    (
        "self_attn",
        ("q_proj", "k_proj", "v_proj"),
        "self_attn.o_proj",
        ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down_proj",
    ),
)


def find_stack(model: Any) -> tuple[Any, str]:
    """The module that holds the layers, and its attribute's name.

    Raises:
        ModelError: it has none that are known.
    """
    for path, name in _STACKS:
        owner = getattr(model.base_model, path, None) if path else model.base_model
        if isinstance(getattr(owner, name, None), nn.ModuleList):
            return owner, name
    raise ModelError("has no layers that are known to choose from", value=type(model).__name__)


def find_parts(model: Any) -> list[LayerParts]:
    """The parts of each layer.

    Raises:
        ModelError: the model's layers are of a build that is not known.
    """
    owner, name = find_stack(model)
    return [_parts(layer, type(model).__name__) for layer in getattr(owner, name)]


def read_widths(model: Any) -> Widths:
    """The widths that a model has.

    Raises:
        ModelError: the model's layers are of a build that is not known.
    """
    parts = find_parts(model)
    return Widths(heads=tuple(part.heads for part in parts), ffn=tuple(part.ffn for part in parts))


def keep_units(parts: LayerParts, heads: Sequence[int], neurons: Sequence[int]) -> None:
    """Leave only the given heads and neurons, ascending, in smaller matrices."""
    count = parts.heads
    for linear in parts.projections:
        _keep_rows(linear, _places(heads, linear.out_features // count))
    _keep_columns(parts.joined, _places(heads, parts.joined.in_features // count))
    for linear in parts.expanding:
        _keep_rows(linear, neurons)
    _keep_columns(parts.contracting, neurons)
    for name in ("num_attention_heads", "num_key_value_heads", "all_head_size"):
        if hasattr(parts.attention, name):
            setattr(parts.attention, name, getattr(parts.attention, name) // count * len(heads))


def settle_widths(model: Any) -> Widths | None:
    """Set the config to the model's widths; returns what the config cannot say, None where it says all."""
    try:
        parts = find_parts(model)
    except ModelError:
        return None
    config, found = model.config, read_widths(model)
    if _said(config, found):
        return None
    if len(set(found.ffn)) == 1:
        config.intermediate_size = found.ffn[0]
    uniform = len(set(found.heads)) == 1
    if uniform and hasattr(parts[0].attention, "head_dim"):
        # These models take the size of a head from the config, not from the hidden size over the heads.
        config.head_dim = parts[0].head_size
        config.num_attention_heads = parts[0].joined.in_features // parts[0].head_size
        if hasattr(config, "num_key_value_heads"):
            config.num_key_value_heads = found.heads[0]
    return None if _said(config, found) else found


def put_widths(model: Any, folder: Path) -> None:
    """Set the config and write `structure.json` where it is needed; `save_pretrained` writes the rest."""
    widths = settle_widths(model)
    if widths is not None:
        (folder / STRUCTURE_FILE).write_text(widths.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_narrowed(folder: Path, model_class: Any, dtype: torch.dtype) -> nn.Module:
    """A model whose folder holds a `structure.json`: built by its config, narrowed, then given its weights.

    Args:
        model_class: of transformers, a concrete one or an Auto class.

    Raises:
        ModelError: the record cannot be read, or does not fit config and weights.
    """
    from safetensors.torch import load_file

    file = folder / STRUCTURE_FILE
    try:
        widths = Widths.model_validate_json(file.read_bytes())
    except (ValidationError, OSError) as error:
        raise ModelError("cannot be read as a record of widths", where=str(file)) from error
    config = read_config(folder)
    builder = getattr(model_class, "from_config", None)
    model: Any = builder(config) if builder is not None else model_class(config)
    parts = find_parts(model)
    whole = read_widths(model)
    fits = len(parts) == len(widths.heads) == len(widths.ffn) and all(
        1 <= kept <= full
        for kept, full in zip((*widths.heads, *widths.ffn), (*whole.heads, *whole.ffn), strict=True)
    )
    if not fits:
        raise ModelError("does not fit the layers of config.json", where=str(file))
    for part, heads, ffn in zip(parts, widths.heads, widths.ffn, strict=True):
        keep_units(part, range(heads), range(ffn))
    try:
        left, unknown = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()
        raise ModelError(f"the weights are of other widths: {line}", where=str(file)) from error
    model.tie_weights()
    tied = getattr(model, "_tied_weights_keys", None) or ()
    missing = [name for name in left if name not in tied]
    if missing or unknown:
        raise ModelError(
            "the weights are not those of config.json", where=str(file), value=[*missing, *unknown][:3]
        )
    narrowed: nn.Module = model.to(dtype).eval()
    return narrowed


def _said(config: Any, widths: Widths) -> bool:
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return set(widths.heads) == {heads} and set(widths.ffn) == {config.intermediate_size}


def _parts(layer: nn.Module, kind: str) -> LayerParts:
    modules = dict(layer.named_modules())
    for attention, projections, joined, expanding, contracting in _BUILDS:
        names = [*(f"{attention}.{name}" for name in projections), joined, *expanding, contracting]
        if not all(isinstance(modules.get(name), nn.Linear) for name in names):
            continue
        found: list[Any] = [modules[name] for name in names]
        owner: Any = modules[attention]
        size = getattr(owner, "head_dim", None) or owner.attention_head_size
        return LayerParts(
            owner, int(size), tuple(found[:3]), found[3], tuple(found[4:-1]), contracting=found[-1]
        )
    raise ModelError(
        "its heads and neurons are not known",
        where="model.teacher",
        value=kind,
        remedy="prune layers alone, or give a model of the BERT, ViT or Llama build",
    )


def _places(units: Sequence[int], size: int) -> list[int]:
    return [unit * size + place for unit in units for place in range(size)]


def _keep_rows(linear: nn.Linear, rows: Sequence[int]) -> None:
    index = torch.as_tensor(list(rows), device=linear.weight.device)
    linear.weight = nn.Parameter(linear.weight.detach()[index].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[index].clone())
    linear.out_features = len(index)


def _keep_columns(linear: nn.Linear, columns: Sequence[int]) -> None:
    index = torch.as_tensor(list(columns), device=linear.weight.device)
    linear.weight = nn.Parameter(linear.weight.detach()[:, index].clone())
    linear.in_features = len(index)
