"""How one token is chosen from log-likelihoods over the vocabulary."""

from __future__ import annotations

import torch

from equipoise.engines.generation import GenerationParams

_CANDIDATES = 1024
"""The likeliest so many are sorted first: they nearly always hold the share that is drawn from."""


def choose(scores: torch.Tensor, params: GenerationParams, draw: torch.Generator) -> int:
    """One token; takes one random number from `draw`, whatever the vocabulary, and none at temperature 0.

    Args:
        scores: log-likelihoods, float32 of shape (vocabulary,).
        params: temperature and top_p; the likeliest token is never left out.
        draw: the text's own generator.
    """
    if params.temperature == 0:
        return int(scores.argmax())
    shares = (scores / params.temperature).softmax(dim=-1)
    tokens = None
    if params.top_p < 1:
        shares, tokens = _likeliest(shares, params.top_p)
    # In float64: over a whole vocabulary the rounding of float32 sums up.
    sums = shares.cumsum(dim=-1, dtype=torch.float64)
    spot = torch.rand((), generator=draw, dtype=torch.float64) * sums[-1]
    chosen = min(int(torch.searchsorted(sums, spot, right=True)), len(sums) - 1)
    return chosen if tokens is None else int(tokens[chosen])


def _likeliest(shares: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The fewest likeliest tokens that hold `top_p` together: their shares, the largest first, and which."""
    for count in (min(_CANDIDATES, len(shares)), len(shares)):
        ordered, tokens = shares.topk(count)
        sums = ordered.cumsum(dim=-1, dtype=torch.float64)
        # The token that fills the share up belongs to it.
        kept = 1 + int((sums < top_p).sum())
        if kept <= count:
            break
    return ordered[:kept], tokens[:kept]
