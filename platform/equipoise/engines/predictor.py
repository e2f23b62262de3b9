"""What measurement and serving both call: encode, run, decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.engines.engine import Engine
from equipoise.tasks import Answers, Arrays, Task, join_answers


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
            batch_size: inputs run together.
            order: row numbers as they are cut into batches; by default batches are of like length.
        """
        if order is None:
            order = np.argsort(self.task.lengths(inputs), kind="stable")
        parts = []
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            outputs, arrays = self._run([inputs[row] for row in rows])
            parts.append((rows, self.task.read(outputs, arrays)))
        if not parts:
            return Answers(np.empty((0, len(self.task.labels)), np.float32), np.empty(0, np.int64))
        return join_answers(parts)

    def _run(self, inputs: Sequence[Any]) -> tuple[Arrays, Arrays]:
        arrays = self.task.encode(inputs)
        return self.engine.run({name: arrays[name] for name in self.task.inputs}), arrays
