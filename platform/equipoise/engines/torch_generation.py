"""The generation engine in PyTorch eager: the texts of many callers in one continuous batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from equipoise.engines.continuous_batch import PREFILL_TOKENS, ContinuousBatch, Writing
from equipoise.engines.generation import GenerationParams, Token
from equipoise.engines.torch_engine import open_model

_Received = Token | Exception


class TorchGenerationEngine:
    """A transformers causal model that writes for many at once.

    Lives on one event loop; the steps run in one thread of its own. A text's greedy tokens and its draws
    do not depend on its neighbours, but for the rounding of the arithmetic: in fp32 that is too little
    to be seen, in bf16 two tokens of nearly the same likelihood may change places.

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
        self._batch = ContinuousBatch(
            model,
            max_sequences=max_sequences,
            max_cached_tokens=max_cached_tokens,
            prefill_tokens=prefill_tokens,
        )
        self.max_length = self._batch.max_length
        self._observe = observe
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generation")
        self._worker: asyncio.Task[None] | None = None
        self._told: list[tuple[asyncio.Queue[_Received], Token]] = []
        self._queues: dict[Writing, asyncio.Queue[_Received]] = {}

    @property
    def waiting(self) -> int:
        """Texts that nothing was read of yet."""
        return self._batch.waiting

    def stop_ids(self, end_id: int | None) -> tuple[int, ...]:
        """Tokens that end a text: this one, and those that the model's own configs name."""
        found = {end_id}
        for config in (self.model.config, getattr(self.model, "generation_config", None)):
            held = getattr(config, "eos_token_id", None)
            found.update(held if isinstance(held, list) else [held])
        return tuple(sorted(token for token in found if token is not None))

    async def generate(self, ids: Sequence[int], params: GenerationParams) -> AsyncGenerator[Token, None]:
        """Tokens after `ids`, each as soon as its step is done; closing the iterator frees its slot.

        Raises:
            ValueError: there is no token to go on from, or no room behind them.
            Exception: whatever the model raised at a step.
        """
        queue: asyncio.Queue[_Received] = asyncio.Queue()
        writing = self._batch.add(ids, params, lambda token: self._told.append((queue, token)))
        self._queues[writing] = queue
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        try:
            while True:
                received = await queue.get()
                if isinstance(received, Exception):
                    raise received
                yield received
                if received.finish is not None:
                    return
        finally:
            # Read at the next step; of one that is finished nobody looks at it any more.
            writing.cancelled = True
            del self._queues[writing]

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self._batch.is_idle:
                try:
                    seconds = await loop.run_in_executor(self._thread, self._batch.step)
                except Exception as error:  # noqa: BLE001 - whatever it is, those under way get it
                    self._told.clear()
                    for writing in self._batch.clear():
                        if writing in self._queues:
                            self._queues[writing].put_nowait(error)
                    continue
                told, self._told = self._told, []
                for queue, token in told:
                    queue.put_nowait(token)
                self._observe(sum(token.finish is not None for _, token in told), seconds)
        finally:
            self._worker = None


def open_generation(folder: Path, precision: str, threads: int = 1, **options: Any) -> TorchGenerationEngine:
    """Load a causal language model's folder; fp32 or bf16.

    Args:
        options: of `TorchGenerationEngine`.
    """
    return TorchGenerationEngine(open_model(folder, precision, threads).model, **options)
