"""Unstructured sparsity: the smallest weights of each matrix are zero, and the matrix is as large as before.

By magnitude within each matrix (Han et al., 2015). Whether an engine gains anything from zeros is measured;
`docs/compression.md` says what was found.
"""

from __future__ import annotations

from typing import Any

import torch

from equipoise.training.held_zeros import sparse_weights


def sparsify(model: Any, share: float) -> None:
    """Set the smallest weights of each linear layer and convolution to zero, the last layer's excepted.

    Args:
        share: of a matrix's weights that become zero, 0 to 1; rounded down to whole weights.
    """
    for weight in sparse_weights(model).values():
        count = int(share * weight.numel())
        flat = weight.data.view(-1)
        flat[torch.topk(flat.abs(), count, largest=False).indices] = 0.0
