"""Continuous batching over pages: each step takes a token of every text under way and parts of new prompts.

A text gets all the pages that it can come to need when it is let in, so that none has to be thrown out later.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from equipoise.engines.generation import GenerationParams, Token
from equipoise.engines.paged_model import PAGE_TOKENS, Part, pages_of
from equipoise.engines.sampling import choose, log_likelihoods
from equipoise.engines.writing import PREFILL_TOKENS, Tell, Writing, begin_writing


class Pages(Protocol):
    """A model with pages for keys and values."""

    pages: int
    positions: int | None

    def forward(self, parts: Sequence[Part]) -> NDArray[np.float32]:
        """Logits over the vocabulary after the last token of each part; (parts, vocabulary)."""
        ...


class PagedBatch:
    """Texts that take steps together. `add` and a `cancelled` flag may come from other threads.

    Args:
        model: reads tokens.
        max_sequences: texts under way at once.
        prefill_tokens: tokens of prompts that are read in one step.
    """

    def __init__(self, model: Pages, *, max_sequences: int, prefill_tokens: int = PREFILL_TOKENS) -> None:
        self._model = model
        self._max_sequences = max_sequences
        self._prefill_tokens = prefill_tokens
        room = model.pages * PAGE_TOKENS
        self.max_length = min(room, model.positions or room)
        """Longest prompt and answer together, in tokens."""
        self._waiting: deque[Writing] = deque()
        self._active: dict[Writing, list[int]] = {}
        """Texts under way, in the order in which they came, each with its pages."""
        # The last given back is taken first: its memory is there already.
        self._free = list(range(model.pages))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or waits."""
        return not (self._active or self._waiting)

    @property
    def waiting(self) -> int:
        """Texts that nothing was read of yet."""
        return len(self._waiting)

    @property
    def free_pages(self) -> int:
        """Pages that no text holds."""
        return len(self._free)

    def add(self, ids: Sequence[int], params: GenerationParams, tell: Tell) -> Writing:
        """Another text; its first token comes with one of the next steps.

        Raises:
            ValueError: there is no token to go on from, or no room behind them.
        """
        writing = begin_writing(ids, params, tell, self.max_length)
        self._waiting.append(writing)
        return writing

    def clear(self) -> list[Writing]:
        """Forget every text, after a step that failed; returns them."""
        lost = [*self._active, *self._waiting]
        for writing in list(self._active):
            self._remove(writing)
        self._waiting.clear()
        return lost

    def step(self) -> float:
        """A token for each text under way, and parts of waiting prompts; returns the seconds taken."""
        start = time.perf_counter()
        for writing in [each for each in self._active if each.cancelled]:
            self._remove(writing)
        self._admit()
        parts = self._plan()
        if parts:
            self._take(parts, start)
        return time.perf_counter() - start

    def _admit(self) -> None:
        """Let those in that have waited longest, while there are pages for them."""
        while self._waiting and len(self._active) < self._max_sequences:
            count = pages_of(self._waiting[0].reserved)
            if not self._waiting[0].cancelled:
                if count > len(self._free):
                    return
                pages = [self._free.pop() for _ in range(count)]
                self._active[self._waiting[0]] = pages
            self._waiting.popleft()

    def _plan(self) -> dict[Writing, Part]:
        """What the next pass reads: a token of each text, and of prompts as much as there is time for."""
        left = self._prefill_tokens
        found: dict[Writing, Part] = {}
        for writing, pages in self._active.items():
            if not writing.is_reading:
                found[writing] = Part([writing.last], writing.read, pages)
            elif left:
                ids = writing.ids[writing.read : writing.read + left]
                left -= len(ids)
                found[writing] = Part(ids, writing.read, pages)
        return found

    def _take(self, parts: dict[Writing, Part], start: float) -> None:
        scores = self._model.forward(list(parts.values()))
        for writing, part in parts.items():
            writing.read += len(part.ids)
        done = [(row, each) for row, each in enumerate(parts) if not each.is_reading]
        scores = log_likelihoods(scores[[row for row, _ in done]]) if done else scores
        chosen = [choose(row, each.params, each.draw) for row, (_, each) in zip(scores, done, strict=False)]
        share_s = (time.perf_counter() - start) / sum(len(part.ids) for part in parts.values())
        for writing, part in parts.items():
            writing.busy_s += share_s * len(part.ids)
        for row, (_, writing) in enumerate(done):
            finish = writing.accept(chosen[row])
            if finish is not None:
                self._remove(writing)
            busy_s, writing.busy_s = writing.busy_s, 0.0
            writing.tell(Token(chosen[row], float(scores[row, chosen[row]]), finish, busy_s))

    def _remove(self, writing: Writing) -> None:
        self._free.extend(reversed(self._active.pop(writing)))
