"""Weights that are zero when a training begins and stay so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def sparse_weights(model: Any) -> dict[str, Any]:
    """Weights of linear layers and convolutions below the head, by name; tied ones once."""
    return {
        name: module.weight
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def hold_zeros(model: Any) -> None:
    """Keep each weight that is zero now at zero.

    Its gradient is taken away before the optimizer sees it. Adam's moments start at zero and weight decay
    shrinks nothing there, so it does not move, whatever the ZeRO stage.
    """
    weight: Any
    for weight in sparse_weights(model).values():
        if weight.requires_grad:
            weight.register_hook(_masked(weight.detach() != 0))


def _masked(mask: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda gradient: gradient * mask.to(gradient.device)
