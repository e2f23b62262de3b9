"""The protocol of engines that write text, token after token."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from equipoise.errors import BundleError

if TYPE_CHECKING:
    from equipoise.engines.batched_generation import BatchedGeneration

GENERATION_ENGINES = {
    "torch": "equipoise.engines.torch_generation",
    "openvino": "equipoise.engines.openvino_generation",
}
"""Modules of the engines that write, each with `open_generation` and `LOAD_FAULTS`."""
GENERATION_FILE = "generation.json"
"""Beside an exported model that keeps keys and values: `{"positions": 2048, "end_ids": [0]}`."""

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


def open_generation_engine(
    name: str, folder: Path, precision: str, threads: int = 1, **options: Any
) -> BatchedGeneration:
    """Load a model folder into the named engine; imports no other engine's libraries.

    Args:
        name: one of `GENERATION_ENGINES`.
        options: `max_sequences`, `max_cached_tokens`, `observe`.

    Raises:
        BundleError: the model's files cannot be loaded.
    """
    module = importlib.import_module(GENERATION_ENGINES[name])
    try:
        engine: BatchedGeneration = module.open_generation(folder, precision, threads, **options)
    except (OSError, RuntimeError, ValueError, KeyError, *module.LOAD_FAULTS) as error:
        raise BundleError(f"{name} cannot load the model: {error}", where=str(folder)) from error
    return engine
