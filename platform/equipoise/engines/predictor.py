"""What measurement and serving both call: encode, run, decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.engines.engine import Engine
from equipoise.tasks import Answers, Arrays, Task, join_answers

_MAX_OPEN_TOKENS = 1024
"""Tokens a batch of a language model, each with a distribution over the vocabulary: 200 MB at 50,000."""


class Predictor:
    """A task and an engine; what was measured is what is served."""

    def __init__(self, task: Task, engine: Engine) -> None:
        self.task = task
        self.engine = engine

    def predict(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """One JSON answer an input, for one batch, in order."""
        outputs, arrays = self._run(inputs)
        return self.task.decode(outputs, arrays, inputs)

    def answers(
        self, inputs: Sequence[Any], batch_size: int = 32, order: NDArray[np.int64] | None = None
    ) -> Answers:
        """Answers at each place of any number of inputs, in the order of rows.

        Args:
            batch_size: inputs run together; fewer of a language model, whose outputs are large.
            order: row numbers as they are cut into batches; by default batches are of like length.
        """
        return self.collect(inputs, self.task.read, batch_size, order)

    def collect(
        self,
        inputs: Sequence[Any],
        read: Callable[[Arrays, Arrays], Answers],
        batch_size: int = 32,
        order: NDArray[np.int64] | None = None,
    ) -> Answers:
        """`answers` with another way to read a batch's outputs, such as a language model's `read_top`."""
        lengths = self.task.lengths(inputs)
        if order is None:
            order = np.argsort(lengths, kind="stable")
        if not self.task.labels and len(inputs):
            batch_size = max(1, min(batch_size, _MAX_OPEN_TOKENS // int(lengths.max())))
        parts = []
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            outputs, arrays = self._run([inputs[row] for row in rows])
            parts.append((rows, read(outputs, arrays)))
        if not parts:
            return Answers(np.empty((0, len(self.task.labels)), np.float32), np.empty(0, np.int64))
        return join_answers(parts)

    def _run(self, inputs: Sequence[Any]) -> tuple[Arrays, Arrays]:
        arrays = self.task.encode(inputs)
        return self.engine.run({name: arrays[name] for name in self.task.inputs}), arrays
