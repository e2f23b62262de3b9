"""What a model said at each place that it was asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""Target where nothing is asked: padding, a later piece of a word, a prompt."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One entry a place: a row of a classifier, a word of a tagger, a token of a language model.

    Args:
        logits: shape (places, columns), float32; a column a class, or as `classes` says.
        row_of: the row that each place belongs to, shape (places,), ascending.
        classes: where there are too many classes to keep them all, those that were kept, in the order
            of the columns, shape (places, columns - 1); then `logits` are log-likelihoods, and the last
            column is that of all the other classes together.
    """

    logits: NDArray[np.float32]
    row_of: NDArray[np.int64]
    classes: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.row_of)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Class chosen at each place, shape (places,)."""
        best = self._by_class.argmax(axis=1)
        if self.classes is not None:
            best = self.classes[np.arange(len(self)), best]
        return np.asarray(best, dtype=np.int64)

    @property
    def margins(self) -> NDArray[np.float32]:
        """Distance of the best logit to the second best at each place, shape (places,)."""
        best = np.partition(self._by_class, -2, axis=1)
        return np.asarray(best[:, -1] - best[:, -2], dtype=np.float32)

    @property
    def _by_class(self) -> NDArray[np.float32]:
        """The columns that stand for one class each."""
        return self.logits if self.classes is None else self.logits[:, :-1]

    def at(self, places: NDArray[np.int64] | NDArray[np.bool_]) -> Answers:
        """The answers at some places, their rows' numbers kept."""
        classes = None if self.classes is None else self.classes[places]
        return Answers(self.logits[places], self.row_of[places], classes)


def join_answers(parts: Sequence[tuple[NDArray[np.int64], Answers]]) -> Answers:
    """Answers of batches as one, in the order of rows.

    Args:
        parts: of each batch its rows' numbers, and its answers with rows counted from 0.
    """
    rows = np.concatenate([numbers[answers.row_of] for numbers, answers in parts])
    order = np.argsort(rows, kind="stable")
    logits = np.concatenate([answers.logits for _, answers in parts])[order]
    classes = [answers.classes for _, answers in parts if answers.classes is not None]
    return Answers(logits, rows[order], np.concatenate(classes)[order] if classes else None)
