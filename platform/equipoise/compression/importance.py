"""What the loss of each attention head and each feed-forward neuron would cost a trained model.

`taylor`: a gate of 1 on every head and neuron; the squared derivative of a row's loss by the gate, averaged
over calibration rows, estimates the change of the loss without it to first order (Molchanov et al., 2019;
Michel et al., 2019, take the absolute value). Gates of one row add up over its positions before they are
squared. `magnitude`: the squared norm of the weights in and out, which needs no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from equipoise.config.search import Importance
from equipoise.engines.narrowing import LayerParts, find_parts
from equipoise.training.examples import Examples, take_batch
from equipoise.training.losses import Objective, compute_loss

_BATCH_ROWS = 16


class Scores(BaseModel):
    """Importance by layer, then by head or neuron; heads that share keys and values count as one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: tuple[tuple[float, ...], ...]
    ffn: tuple[tuple[float, ...], ...]


def score(model: Any, by: Importance, examples: Examples) -> Scores:
    """Scores of every head and neuron of a trained model.

    Args:
        examples: encoded training rows with their labels; `magnitude` does not read them.

    Raises:
        ModelError: the model's layers are of a build that is not known.
    """
    parts = find_parts(model)
    if by == "magnitude":
        return Scores(
            heads=tuple(_head_norms(part) for part in parts), ffn=tuple(_neuron_norms(part) for part in parts)
        )
    return _taylor(model.eval(), parts, examples)


def most_important(scores: Sequence[float], count: int) -> list[int]:
    """Places of the `count` highest scores, ascending; of equals the earlier one."""
    order = np.argsort(-np.asarray(scores), kind="stable")[:count]
    return sorted(int(place) for place in order)


def _taylor(model: Any, parts: list[LayerParts], examples: Examples) -> Scores:
    gates: dict[tuple[int, str], torch.Tensor] = {}
    sums: dict[tuple[int, str], torch.Tensor] = {}
    sizes = {"heads": [part.heads for part in parts], "ffn": [part.ffn for part in parts]}

    def gate(place: int, kind: str) -> Any:
        def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            given = inputs[0]
            units = sizes[kind][place]
            ones = torch.ones(given.shape[0], 1, units, 1, dtype=given.dtype, requires_grad=True)
            gates[place, kind] = ones
            split = given.reshape(given.shape[0], -1, units, given.shape[-1] // units) * ones
            return (split.reshape(given.shape), *inputs[1:])

        return hook

    handles = []
    for place, part in enumerate(parts):
        handles.append(part.joined.register_forward_pre_hook(gate(place, "heads")))
        handles.append(part.contracting.register_forward_pre_hook(gate(place, "ffn")))
    try:
        for start in range(0, len(examples), _BATCH_ROWS):
            rows = np.arange(start, min(start + _BATCH_ROWS, len(examples)))
            batch = take_batch(examples, rows, "cpu", torch.float32)
            # The mean over the rows, so that a row's own gate has its own derivative over the batch's size.
            loss = compute_loss(model(**batch.inputs).logits, batch, Objective()) * len(batch.targets)
            found = torch.autograd.grad(loss, list(gates.values()))
            for key, derivative in zip(gates, found, strict=True):
                square = derivative.reshape(derivative.shape[0], -1).double().square().sum(dim=0)
                sums[key] = sums.get(key, 0) + square
    finally:
        for handle in handles:
            handle.remove()
    by_kind = {
        kind: tuple(tuple((sums[place, kind] / len(examples)).tolist()) for place in range(len(parts)))
        for kind in sizes
    }
    return Scores(heads=by_kind["heads"], ffn=by_kind["ffn"])


def _head_norms(part: LayerParts) -> tuple[float, ...]:
    total = torch.zeros(part.heads, dtype=torch.float64)
    for linear in part.projections:
        total += linear.weight.detach().double().square().reshape(part.heads, -1).sum(dim=1)
    columns = part.joined.weight.detach().double().square().sum(dim=0)
    return tuple((total + columns.reshape(part.heads, -1).sum(dim=1)).tolist())


def _neuron_norms(part: LayerParts) -> tuple[float, ...]:
    total = part.contracting.weight.detach().double().square().sum(dim=0)
    for linear in part.expanding:
        total = total + linear.weight.detach().double().square().sum(dim=1)
    return tuple(total.tolist())
