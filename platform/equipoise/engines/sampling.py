"""How one token is chosen from log-likelihoods over the vocabulary; without torch, for every engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.engines.generation import GenerationParams

_CANDIDATES = 1024
"""The likeliest so many are sorted first: they nearly always hold the share that is drawn from."""


def new_draw(seed: int) -> np.random.Generator:
    """A text's own random numbers; any whole number of 64 bits is a seed, a negative one too."""
    return np.random.default_rng(seed % 2**64)


def log_likelihoods(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    found: NDArray[np.float32] = shifted - np.log(total).astype(np.float32)
    return found


def choose(scores: NDArray[np.float32], params: GenerationParams, draw: np.random.Generator) -> int:
    """One token; takes one random number from `draw`, whatever the vocabulary, and none at temperature 0.

    Args:
        scores: log-likelihoods, float32 of shape (vocabulary,).
        params: temperature and top_p; the likeliest token is never left out.
        draw: the text's own generator.
    """
    if params.temperature == 0:
        return int(scores.argmax())
    # Next to a temperature of 0 all but the likeliest come to minus infinity, which is what is meant.
    with np.errstate(over="ignore", under="ignore"):
        shares = np.exp((scores - scores.max()) / np.float64(params.temperature))
    tokens = None
    if params.top_p < 1:
        shares, tokens = _likeliest(shares, params.top_p)
    sums = shares.cumsum()
    spot = draw.random() * sums[-1]
    chosen = min(int(np.searchsorted(sums, spot, side="right")), len(sums) - 1)
    return chosen if tokens is None else int(tokens[chosen])


def _likeliest(shares: NDArray[np.float64], top_p: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The fewest likeliest tokens that hold `top_p` together: their shares, the largest first, and which."""
    wanted = top_p * shares.sum()
    for count in (min(_CANDIDATES, len(shares)), len(shares)):
        tokens = np.argpartition(shares, len(shares) - count)[len(shares) - count :]
        tokens = tokens[np.argsort(-shares[tokens], kind="stable")]
        ordered = shares[tokens]
        # The token that fills the share up belongs to it.
        kept = 1 + int((ordered.cumsum() < wanted).sum())
        if kept <= count:
            break
    return ordered[:kept], tokens[:kept]
