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
        logits: shape (places, classes), float32.
        row_of: the row that each place belongs to, shape (places,), ascending.
        chosen: class chosen at each place where the classes are too many to keep their logits; then
            `logits` are the log-likelihoods of (what is there, the best other, the second best other, all
            the rest).
    """

    logits: NDArray[np.float32]
    row_of: NDArray[np.int64]
    chosen: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.row_of)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Class chosen at each place, shape (places,)."""
        if self.chosen is not None:
            return self.chosen
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    @property
    def margins(self) -> NDArray[np.float32]:
        """Distance of the best logit to the second best at each place, shape (places,)."""
        # The last column of an open vocabulary is no class, but what is left of the distribution.
        classes = self.logits if self.chosen is None else self.logits[:, :-1]
        best = np.partition(classes, -2, axis=1)
        return np.asarray(best[:, -1] - best[:, -2], dtype=np.float32)

    def at(self, places: NDArray[np.int64] | NDArray[np.bool_]) -> Answers:
        """The answers at some places, their rows' numbers kept."""
        chosen = None if self.chosen is None else self.chosen[places]
        return Answers(self.logits[places], self.row_of[places], chosen)


def join_answers(parts: Sequence[tuple[NDArray[np.int64], Answers]]) -> Answers:
    """Answers of batches as one, in the order of rows.

    Args:
        parts: of each batch its rows' numbers, and its answers with rows counted from 0.
    """
    rows = np.concatenate([numbers[answers.row_of] for numbers, answers in parts])
    order = np.argsort(rows, kind="stable")
    logits = np.concatenate([answers.logits for _, answers in parts])[order]
    chosen = [answers.chosen for _, answers in parts if answers.chosen is not None]
    return Answers(logits, rows[order], np.concatenate(chosen)[order] if chosen else None)
