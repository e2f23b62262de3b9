"""What the loss of each attention head and each feed-forward neuron would cost a trained model.

`taylor`: a gate of 1 on every head and neuron; the squared derivative of a row's loss by the gate, averaged
over calibration rows, estimates the change of the loss without it to first order (Molchanov et al., 2019;
Michel et al., 2019, take the absolute value). Gates of one row add up over its positions before they are
squared. `magnitude`: the squared norm of the weights in and out, which needs no data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


Gates = Mapping[str, tuple[Sequence[torch.nn.Module], int]]
"""By name: the modules whose input a gate stands on, and how many units it has."""


def squared_slopes(model: Any, gates: Gates, examples: Examples) -> dict[str, tuple[float, ...]]:
    """The squared derivative of a row's loss by each unit's gate, averaged over the rows.

    One gate stands on the inputs of all its modules: equal parts of the last axis of a linear layer's, the
    channels of a convolution's.
    """
    open_gates: dict[str, torch.Tensor] = {}
    sums: dict[str, torch.Tensor] = {}

    def gate(name: str, units: int) -> Any:
        def hook(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            given = inputs[0]
            if name not in open_gates:
                ones = torch.ones(len(given), 1, units, 1, dtype=given.dtype)
                open_gates[name] = ones.requires_grad_()
            channels = isinstance(module, torch.nn.Conv2d)
            shape = (
                (len(given), 1, units, -1) if channels else (len(given), -1, units, given.shape[-1] // units)
            )
            gated = given.reshape(shape) * open_gates[name]
            return (gated.reshape(given.shape), *inputs[1:])

        return hook

    handles = [
        module.register_forward_pre_hook(gate(name, units))
        for name, (modules, units) in gates.items()
        for module in modules
    ]
    try:
        for start in range(0, len(examples), _BATCH_ROWS):
            open_gates.clear()
            rows = np.arange(start, min(start + _BATCH_ROWS, len(examples)))
            batch = take_batch(examples, rows, "cpu", torch.float32)
            # The mean over the rows, so that a row's own gate has its own derivative over the batch's size.
            loss = compute_loss(model(**batch.inputs).logits, batch, Objective()) * len(batch.targets)
            found = torch.autograd.grad(loss, list(open_gates.values()))
            for name, derivative in zip(open_gates, found, strict=True):
                square = derivative.reshape(derivative.shape[0], -1).double().square().sum(dim=0)
                sums[name] = sums.get(name, 0) + square
    finally:
        for handle in handles:
            handle.remove()
    return {name: tuple((total / len(examples)).tolist()) for name, total in sums.items()}


def _taylor(model: Any, parts: list[LayerParts], examples: Examples) -> Scores:
    gates: dict[str, tuple[Sequence[torch.nn.Module], int]] = {}
    for place, part in enumerate(parts):
        gates[f"heads {place}"] = ([part.joined], part.heads)
        gates[f"ffn {place}"] = ([part.contracting], part.ffn)
    found = squared_slopes(model, gates, examples)
    return Scores(
        heads=tuple(found[f"heads {place}"] for place in range(len(parts))),
        ffn=tuple(found[f"ffn {place}"] for place in range(len(parts))),
    )


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
