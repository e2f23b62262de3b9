"""One text after another in PyTorch eager, with the keys and values of earlier tokens kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from equipoise.engines.generation import Finish, GenerationParams, Token
from equipoise.engines.sampling import choose, new_draw
from equipoise.engines.torch_engine import open_model


class TorchWriter:
    """A transformers causal model that writes one text at a time, no further than it is asked."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.positions: int | None = getattr(model.config, "max_position_embeddings", None)

    def write(self, ids: Sequence[int], params: GenerationParams) -> Iterator[Token]:
        """Tokens after `ids`.

        Raises:
            ValueError: there is no token to go on from.
        """
        if not len(ids):
            raise ValueError("there is no token to go on from")
        room = params.max_tokens
        if self.positions is not None:
            room = min(room, self.positions - len(ids))
        draw = new_draw(params.seed)
        given = torch.tensor([list(ids)])
        cache: Any = None
        for count in range(1, room + 1):
            with torch.inference_mode():
                outputs = self.model(input_ids=given, cache=cache, use_cache=True, logits_to_keep=1)
                cache = outputs.cache
                scores = outputs.logits[0, -1].float().log_softmax(dim=-1)
                chosen = choose(scores.numpy(), params, draw)
            stopped = chosen in params.stop_ids
            last: Finish | None = "stop" if stopped else "length" if count == room else None
            yield Token(chosen, float(scores[chosen]), last)
            if stopped:
                return
            given = torch.tensor([[chosen]])


def open_writer(folder: Path, precision: str, threads: int = 1) -> TorchWriter:
    """Load a causal language model's folder; fp32 or bf16."""
    return TorchWriter(open_model(folder, precision, threads).model)
