"""Generation in PyTorch eager, with the keys and values of earlier tokens kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from equipoise.engines.generation import Finish, GenerationParams, Token
from equipoise.engines.torch_engine import open_model


class TorchGenerationEngine:
    """A transformers causal model; the tokens of one text are computed one after another in a thread."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.positions: int | None = getattr(model.config, "max_position_embeddings", None)

    async def generate(self, ids: Sequence[int], params: GenerationParams) -> AsyncIterator[Token]:
        """Tokens after `ids`; nothing is computed ahead of what is asked for."""
        tokens = self.write(ids, params)
        while (token := await asyncio.to_thread(next, tokens, None)) is not None:
            yield token

    def write(self, ids: Sequence[int], params: GenerationParams) -> Iterator[Token]:
        """The same without an event loop.

        Raises:
            ValueError: there is no token to go on from.
        """
        if not len(ids):
            raise ValueError("there is no token to go on from")
        room = params.max_tokens
        if self.positions is not None:
            room = min(room, self.positions - len(ids))
        draw = torch.Generator().manual_seed(params.seed)
        given = torch.tensor([list(ids)])
        cache: Any = None
        for count in range(1, room + 1):
            with torch.inference_mode():
                outputs = self.model(input_ids=given, cache=cache, use_cache=True, logits_to_keep=1)
                cache = outputs.cache
                scores = outputs.logits[0, -1].float().log_softmax(dim=-1)
                chosen = _choose(scores, params, draw)
            stopped = chosen in params.stop_ids
            last: Finish | None = "stop" if stopped else "length" if count == room else None
            yield Token(chosen, float(scores[chosen]), last)
            if stopped:
                return
            given = torch.tensor([[chosen]])


def open_generation(folder: Path, precision: str, threads: int = 1) -> TorchGenerationEngine:
    """Load a causal language model's folder; fp32 or bf16."""
    return TorchGenerationEngine(open_model(folder, precision, threads).model)


def _choose(scores: torch.Tensor, params: GenerationParams, draw: torch.Generator) -> int:
    """One token from log-likelihoods over the vocabulary."""
    if params.temperature == 0:
        return int(scores.argmax())
    shares = (scores / params.temperature).softmax(dim=-1)
    ordered, tokens = shares.sort(descending=True, stable=True)
    # The token that fills the share up belongs to it, so the likeliest one always stays.
    ordered[ordered.cumsum(dim=-1) - ordered >= params.top_p] = 0
    return int(tokens[torch.multinomial(ordered, 1, generator=draw)])
