"""The generation engine in PyTorch eager: the texts of many callers in one continuous batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from equipoise.engines.batched_generation import BatchedGeneration
from equipoise.engines.continuous_batch import ContinuousBatch
from equipoise.engines.end_ids import end_ids_of
from equipoise.engines.torch_engine import LOAD_FAULTS, open_model
from equipoise.engines.writing import PREFILL_TOKENS

__all__ = ["LOAD_FAULTS", "TorchGenerationEngine", "open_generation"]


class TorchGenerationEngine(BatchedGeneration):
    """A transformers causal model that writes for many at once.

    A text's greedy tokens and its draws do not depend on its neighbours, but for the rounding of the
    arithmetic: in fp32 that is too little to be seen, in bf16 two tokens of nearly the same likelihood may
    change places.

    Args:
        model: a causal model of transformers.
        max_sequences: sequences under way at once; others wait in order.
        max_cached_tokens: keys and values that are kept at once, in tokens: sequences times the longest.
        prefill_tokens: tokens of a prompt that are read between two steps.
        observe: called on the event loop with the texts that ended at a step and the seconds it took.
    """

    def __init__(
        self,
        model: Any,
        *,
        max_sequences: int = 32,
        max_cached_tokens: int = 16_384,
        prefill_tokens: int = PREFILL_TOKENS,
        observe: Callable[[int, float], None] = lambda texts, seconds: None,
    ) -> None:
        self.model = model
        batch = ContinuousBatch(
            model,
            max_sequences=max_sequences,
            max_cached_tokens=max_cached_tokens,
            prefill_tokens=prefill_tokens,
        )
        super().__init__(batch, end_ids=end_ids_of(model), observe=observe)


def open_generation(folder: Path, precision: str, threads: int = 1, **options: Any) -> TorchGenerationEngine:
    """Load a causal language model's folder; fp32 or bf16.

    Args:
        options: of `TorchGenerationEngine`.
    """
    return TorchGenerationEngine(open_model(folder, precision, threads).model, **options)
