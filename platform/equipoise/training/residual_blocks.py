"""Leaving out residual blocks of a ResNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from equipoise.errors import ModelError


def keep_blocks(model: Any, blocks: Sequence[int]) -> None:
    """Keep the given residual blocks, counted through all stages, and set the config to match.

    A block that is left out is the identity of its own shortcut, so what follows still fits
    (Huang et al., 2016, train with blocks left out at random).

    Raises:
        ModelError: a stage would lose its first block, which changes width and size, or there is
            no such block.
    """
    stages = getattr(getattr(model.base_model, "encoder", None), "stages", None)
    if stages is None:
        raise ModelError("has no stages of residual blocks to choose from", value=type(model).__name__)
    total = sum(len(stage.layers) for stage in stages)
    missing = [block for block in blocks if block >= total]
    if missing:
        raise ModelError(f"has {total} blocks", where="layers", value=missing, remedy=f"use 0 to {total - 1}")
    start = 0
    depths = []
    for stage in stages:
        size = len(stage.layers)
        kept = [block - start for block in sorted(blocks) if start <= block < start + size]
        if not kept or kept[0] != 0:
            raise ModelError(
                "a stage would lose its first block, which changes width and size",
                where="layers",
                value=list(blocks),
                remedy=f"keep block {start}",
            )
        stage.layers = nn.Sequential(*(stage.layers[block] for block in kept))
        depths.append(len(kept))
        start += size
    model.config.depths = depths
