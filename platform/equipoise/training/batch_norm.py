"""Batch normalization of a model that trains in half precision, or on rows that do not count."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional


class WideBatchNorm2d(nn.BatchNorm2d):
    """Normalizes in fp32 and keeps its running statistics there.

    In bf16 a running mean stands still: a tenth of a small difference is less than its last digit.
    On CPUs a bf16 input beside fp32 statistics is not computed at all.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        normalized = functional.batch_norm(
            input.float(),
            self.running_mean,
            self.running_var,
            self.weight.float(),
            self.bias.float(),
            self.training,
            self.momentum or 0.0,
            self.eps,
        )
        return normalized.to(input.dtype)


def widen_batch_norms(model: nn.Module) -> None:
    """Let every two-dimensional batch normalization of a model compute in fp32."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = WideBatchNorm2d


@contextlib.contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch normalizations as they are for as long as the block runs."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
    ]
    for module in norms:
        module.eval()
    try:
        yield
    finally:
        for module in norms:
            module.train()
