"""The rows that every leg of the serving benchmark is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BenchmarkRows:
    """Texts and their labels, in the order in which they are asked."""

    texts: list[str]
    labels: list[str]

    def accuracy(self, predicted: Sequence[str]) -> float:
        """Share of the labels that are right; a row without an answer is wrong."""
        return sum(map(str.__eq__, predicted, self.labels)) / len(self.labels)


def named(label: str, labels: Sequence[str]) -> str:
    """A pipeline's label by its own name: `LABEL_3` where the model's config names none."""
    number = label.removeprefix("LABEL_")
    return labels[int(number)] if number != label and number.isdecimal() else label
