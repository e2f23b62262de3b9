"""The protocol of engines that write text, token after token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """How tokens are chosen, and when to stop.

    Args:
        max_tokens: the most that are written.
        temperature: divides the logits before one is drawn; 0 always takes the likeliest.
        top_p: tokens are drawn among the likeliest that hold this share together (Holtzman et al., 2020).
        stop_ids: tokens that end the text; the one that does is written too.
        seed: of the draws; the same seed draws the same text.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    stop_ids: tuple[int, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """One token, the log-likelihood that the model gave it, and on the last one why it is the last."""

    id: int
    log_likelihood: float
    finish: Finish | None = None
    busy_s: float = 0.0
    """Its share of the engine's seconds; the prompt's are in those of the first token."""


class GenerationEngine(Protocol):
    """Writes what follows; may be asked for several texts at once."""

    max_length: int
    """Longest prompt and answer together, in tokens."""

    def generate(self, ids: Sequence[int], params: GenerationParams) -> AsyncIterator[Token]:
        """Tokens after these, each as soon as it is known; who closes the iterator gives the text up.

        Raises:
            ValueError: there is no token to go on from, or no room behind them.
        """
        ...
