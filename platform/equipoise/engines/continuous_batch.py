"""Continuous batching: at each step every sequence under way gets its next token, and others may join.

A batch that is filled once and run to its end waits for its longest text. Here a sequence leaves as soon
as it is finished, and one that waits takes its place at the next step (Yu et al., 2022, "Orca").
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from equipoise.engines.generation import GenerationParams, Token
from equipoise.engines.sampling import choose
from equipoise.engines.slot_cache import SlotCache
from equipoise.engines.writing import PREFILL_TOKENS, Tell, Writing, begin_writing


class ContinuousBatch:
    """Sequences that take steps together. `add` and a `cancelled` flag may come from other threads.

    Args:
        model: a causal model of transformers.
        max_sequences: sequences under way at once.
        max_cached_tokens: keys and values that are kept at once, in tokens: sequences times the longest.
        prefill_tokens: tokens of a prompt that are read in one step.
    """

    def __init__(
        self,
        model: Any,
        *,
        max_sequences: int,
        max_cached_tokens: int,
        prefill_tokens: int = PREFILL_TOKENS,
    ) -> None:
        self._model = model
        self._max_sequences = max_sequences
        self._max_cached_tokens = max_cached_tokens
        self._prefill_tokens = prefill_tokens
        positions = getattr(model.config, "max_position_embeddings", None)
        self.max_length = min(max_cached_tokens, positions or max_cached_tokens)
        """Longest prompt and answer together, in tokens."""
        self._waiting: deque[Writing] = deque()
        self._active: list[Writing] = []
        """In the order of their rows; one whose prompt is still being read is the last."""
        self._cache = SlotCache()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or waits."""
        return not (self._active or self._waiting)

    @property
    def waiting(self) -> int:
        """Sequences that have no row yet."""
        return len(self._waiting)

    def add(self, ids: Sequence[int], params: GenerationParams, tell: Tell) -> Writing:
        """Another text; its first token comes with one of the next steps.

        Raises:
            ValueError: there is no token to go on from, or no room behind them.
        """
        writing = begin_writing(ids, params, tell, self.max_length)
        self._waiting.append(writing)
        return writing

    def clear(self) -> list[Writing]:
        """Forget every sequence, after a step that failed; returns them."""
        lost = [*self._active, *self._waiting]
        self._active.clear()
        self._waiting.clear()
        self._cache = SlotCache()
        return lost

    def step(self) -> float:
        """A token for each sequence under way, and a part of a waiting prompt; returns the seconds taken."""
        start = time.perf_counter()
        with torch.inference_mode():
            for row in reversed(range(len(self._active))):
                if self._active[row].cancelled:
                    self._remove(row)
            self._admit()
            writing = [each for each in self._active if not each.is_reading]
            if writing:
                self._write(writing)
            if self._active and self._active[-1].is_reading:
                self._read_prompt(self._active[-1])
        return time.perf_counter() - start

    def _admit(self) -> None:
        """Give a row to the one that has waited longest, unless a prompt is being read."""
        if self._active and self._active[-1].is_reading:
            return
        while self._waiting and self._waiting[0].cancelled:
            self._waiting.popleft()
        if not self._waiting:
            return
        count = len(self._active) + 1
        longest = max(each.reserved for each in [*self._active, self._waiting[0]])
        if count > self._max_sequences or count * longest > self._max_cached_tokens:
            return
        self._active.append(self._waiting.popleft())
        if count > self._cache.rows or longest > self._cache.columns:
            rows = self._cache.rows if count <= self._cache.rows else 2 * count
            self._cache.resize(min(rows, self._max_sequences, self._max_cached_tokens // longest), longest)

    def _write(self, writing: list[Writing]) -> None:
        """The next token of the sequences in the first rows."""
        start = time.perf_counter()
        ids = torch.tensor([[each.last] for each in writing])
        starts = torch.tensor([each.read for each in writing])
        longest = max(each.read for each in writing) + 1
        mask = (torch.arange(longest) <= starts[:, None])[:, None, None, :]
        scores = self._forward(ids, 0, starts, longest, starts[:, None], mask)
        chosen = [
            choose(row, each.params, each.draw) for row, each in zip(scores.numpy(), writing, strict=True)
        ]
        share_s = (time.perf_counter() - start) / len(writing)
        # From the last row on, as a row that is given up takes the last one's place.
        for row in reversed(range(len(writing))):
            writing[row].read += 1
            self._tell(row, chosen[row], float(scores[row, chosen[row]]), share_s)

    def _read_prompt(self, reading: Writing) -> None:
        """A part of a prompt into the last row; the text's first token, if it is the last part."""
        start = time.perf_counter()
        part = torch.tensor([reading.ids[reading.read : reading.read + self._prefill_tokens]])
        first, length = reading.read, part.shape[1]
        positions = torch.arange(first, first + length)
        mask = (torch.arange(first + length) <= positions[:, None])[None, None]
        row = len(self._active) - 1
        scores = self._forward(part, row, torch.tensor([first]), first + length, positions[None], mask)[0]
        reading.read += length
        reading.busy_s += time.perf_counter() - start
        if reading.read == len(reading.ids):
            chosen = choose(scores.numpy(), reading.params, reading.draw)
            self._tell(row, chosen, float(scores[chosen]), reading.busy_s)

    def _forward(
        self,
        ids: torch.Tensor,
        first_row: int,
        starts: torch.Tensor,
        longest: int,
        positions: torch.Tensor,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        """Log-likelihoods over the vocabulary after the last token of each row; (rows, vocabulary)."""
        self._cache.aim(first_row, starts, longest)
        outputs = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            cache=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        found: torch.Tensor = outputs.logits[:, -1].float().log_softmax(dim=-1)
        return found

    def _tell(self, row: int, chosen: int, log_likelihood: float, busy_s: float) -> None:
        writing = self._active[row]
        finish = writing.accept(chosen)
        if finish is not None:
            self._remove(row)
        writing.tell(Token(chosen, log_likelihood, finish, busy_s))

    def _remove(self, row: int) -> None:
        """Give a row up: the last one that is written to takes its place, and the one behind that its."""
        is_reading = self._active[-1].is_reading
        last = len(self._active) - 1
        order = [row, last - 1, last] if is_reading and row < last else [row, last]
        for target, source in pairwise(order):
            if source != target:
                self._cache.move(source, target, self._active[source].read)
                self._active[target] = self._active[source]
        self._active.pop()
