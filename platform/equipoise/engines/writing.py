"""A text under way in a batch of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from equipoise.engines.generation import Finish, GenerationParams, Token
from equipoise.engines.sampling import new_draw

PREFILL_TOKENS = 128
"""A prompt is read so many tokens a step, so that a long one does not hold up the texts under way."""

Tell = Callable[[Token], None]


@dataclass(eq=False)
class Writing:
    """One text under way."""

    ids: list[int]
    params: GenerationParams
    tell: Tell
    """Takes each token, in the thread that runs the steps."""
    room: int
    """Tokens that are written at most."""
    draw: np.random.Generator
    read: int = 0
    """Tokens whose keys and values are kept."""
    written: int = 0
    last: int = 0
    busy_s: float = 0.0
    """Engine seconds since the token before."""
    cancelled: bool = False

    @property
    def reserved(self) -> int:
        """Tokens that it has at its longest, the prompt's among them."""
        return len(self.ids) + self.room

    @property
    def is_reading(self) -> bool:
        """Whether a part of its prompt is still to be read."""
        return self.read < len(self.ids)

    def accept(self, chosen: int) -> Finish | None:
        """Take the next token; returns why it is the last one, if it is."""
        self.written += 1
        self.last = chosen
        if chosen in self.params.stop_ids:
            return "stop"
        return "length" if self.written == self.room else None


def begin_writing(ids: Sequence[int], params: GenerationParams, tell: Tell, max_length: int) -> Writing:
    """A text that goes on from `ids`.

    Raises:
        ValueError: there is no token to go on from, or no room behind them.
    """
    if not len(ids):
        raise ValueError("there is no token to go on from")
    room = min(params.max_tokens, max_length - len(ids))
    if room < 1:
        raise ValueError(f"{len(ids)} tokens leave no room for another: at most {max_length} fit")
    return Writing(list(ids), params, tell, room, new_draw(params.seed))
