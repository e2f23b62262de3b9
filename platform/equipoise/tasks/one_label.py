"""What the families with one label a row share, whatever a row is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.tasks.answers import Answers
from equipoise.tasks.scores import share, softmax, tally_hits
from equipoise.tasks.task import Arrays


class OneLabel:
    """One place a row; the metric is accuracy."""

    metric_name: ClassVar[str] = "accuracy"
    labels: tuple[str, ...]
    temperature: float

    def targets(self, arrays: Arrays, labels: Sequence[str]) -> NDArray[np.int64]:
        """Label numbers, shape (batch,)."""
        del arrays
        number = {label: index for index, label in enumerate(self.labels)}
        return np.array([number[label] for label in labels], dtype=np.int64)

    def read(self, outputs: Arrays, arrays: Arrays) -> Answers:
        """One place a row."""
        del arrays
        logits = outputs["logits"]
        return Answers(logits, np.arange(len(logits), dtype=np.int64))

    def decode(self, outputs: Arrays, arrays: Arrays, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Logits of shape (batch, labels) to labels with calibrated scores."""
        del arrays, inputs
        scores = softmax(outputs["logits"] / self.temperature)
        return [
            {
                "label": self.labels[index],
                "score": float(row[index]),
                "scores": dict(zip(self.labels, row.tolist(), strict=True)),
            }
            for index, row in zip(scores.argmax(axis=1).tolist(), scores, strict=True)
        ]

    def tally(self, answers: Answers, truth: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
        """(hits, 1) of each row."""
        return tally_hits(answers, truth, rows)

    def metric(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Accuracy."""
        return share(sums)
