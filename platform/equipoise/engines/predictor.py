"""What measurement and serving both call: encode, run, decode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.engines.engine import Engine
from equipoise.tasks import Task


class Predictor:
    """A task and an engine; what was measured is what is served."""

    def __init__(self, task: Task, engine: Engine) -> None:
        self.task = task
        self.engine = engine

    def predict(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Answers for one batch, in order."""
        return self.task.decode(self.engine.run(self.task.encode(inputs)))

    def logits(self, inputs: Sequence[Any], batch_size: int = 32) -> NDArray[np.float32]:
        """Logits of any number of inputs, shape (rows, labels), in batches of like length."""
        order = np.argsort(self.task.lengths(inputs), kind="stable")
        found: NDArray[np.float32] | None = None
        for rows in _chunks(order, batch_size):
            outputs = self.engine.run(self.task.encode([inputs[row] for row in rows]))["logits"]
            if found is None:
                found = np.empty((len(inputs), outputs.shape[1]), dtype=np.float32)
            found[rows] = outputs
        return np.empty((0, len(self.task.labels)), dtype=np.float32) if found is None else found


def _chunks(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
