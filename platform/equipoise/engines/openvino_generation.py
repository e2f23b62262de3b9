"""The generation engine in OpenVINO: the texts of many callers in one continuous batch over pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from equipoise.engines.batched_generation import BatchedGeneration
from equipoise.engines.openvino_engine import LOAD_FAULTS
from equipoise.engines.paged_batch import PagedBatch
from equipoise.engines.paged_model import PagedModel

__all__ = ["LOAD_FAULTS", "open_generation"]


def open_generation(
    folder: Path,
    precision: str,
    threads: int = 1,
    *,
    max_sequences: int = 32,
    max_cached_tokens: int = 16_384,
    observe: Callable[[int, float], None] = lambda texts, seconds: None,
) -> BatchedGeneration:
    """Load `model.xml` and `generation.json` of a causal language model.

    Args:
        max_sequences: texts under way at once; others wait in order.
        max_cached_tokens: keys and values that are kept at once, in tokens.
        observe: called on the event loop with the texts that ended at a step and the seconds it took.
    """
    model = PagedModel(folder, precision, threads, max_cached_tokens)
    batch = PagedBatch(model, max_sequences=max_sequences)
    return BatchedGeneration(batch, end_ids=model.end_ids, observe=observe)
