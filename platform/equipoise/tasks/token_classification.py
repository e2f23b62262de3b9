"""Token classification: one tag a word, such as named entities (BERT family)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from equipoise.data import Layout
from equipoise.tasks.answers import IGNORED, Answers
from equipoise.tasks.entities import find_entities
from equipoise.tasks.pieces import PieceEncoder
from equipoise.tasks.scores import softmax
from equipoise.tasks.task import Arrays

ASKED = "asked"
"""Array beside the model's inputs: 1 at the first piece of each word, shape (batch, longest)."""

_WORDS = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")

Words = Sequence[str] | str


class TokenClassification(PieceEncoder):
    """A word is tagged at its first piece; words beyond `max_length` pieces get no tag.

    Labels are tags, IOB2 where they mark entities; for the other arguments see `PieceEncoder`.
    """

    name: ClassVar[str] = "token_classification"
    layout: ClassVar[Layout] = "words"
    metric_name: ClassVar[str] = "entity-F1"
    model_class: ClassVar[str] = "AutoModelForTokenClassification"

    def examples(self) -> list[Words]:
        return [["A", "short", "text"], "Another one, longer than the first by a few words."]

    def to_text(self, value: Words) -> str:
        """Words joined by spaces; the text is cut into words anew when it is encoded."""
        return value if isinstance(value, str) else " ".join(value)

    def encode(self, inputs: Sequence[Words]) -> Arrays:
        """Lists of words, or texts that are cut into words, to int64 arrays of shape (batch, longest)."""
        encodings = self._encode(inputs)
        asked = np.array([_first_pieces(e.word_ids) for e in encodings], dtype=np.int64)
        return {**self._arrays(encodings), ASKED: asked}

    def targets(self, arrays: Arrays, labels: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """Tag numbers at the first piece of each word, shape (batch, longest)."""
        number = {label: index for index, label in enumerate(self.labels)}
        asked = arrays[ASKED] == 1
        found = np.full(asked.shape, IGNORED, dtype=np.int64)
        for row, tags in enumerate(labels):
            places = np.flatnonzero(asked[row])
            found[row, places] = [number[tag] for tag in tags[: len(places)]]
        return found

    def read(self, outputs: Arrays, arrays: Arrays) -> Answers:
        """One place a word; logits of shape (batch, longest, tags)."""
        logits = outputs["logits"]
        rows, pieces = np.nonzero(arrays[ASKED][:, : logits.shape[1]])
        return Answers(np.asarray(logits[rows, pieces], dtype=np.float32), rows.astype(np.int64))

    def decode(self, outputs: Arrays, arrays: Arrays, inputs: Sequence[Words]) -> list[dict[str, Any]]:
        """`{"label", "score", "scores", "tags", "entities": [{"label", "text", "start", "end", "score"}]}`.

        `start` and `end` count characters of a text, and words of a list. `label` is all tags in one
        string; a score is the least of its words'. There is no one distribution: `scores` is empty.
        """
        answers = self.read(outputs, arrays)
        scores = softmax(answers.logits / self.temperature)
        found = []
        for row, given in enumerate(inputs):
            own = answers.row_of == row
            tags = [self.labels[index] for index in answers.predicted[own].tolist()]
            best = scores[own].max(axis=1)
            _, spans = split_words(given)
            entities = [
                {
                    "label": entity.kind,
                    "text": _text_of(given, spans[entity.start][0], spans[entity.stop - 1][1]),
                    "start": spans[entity.start][0],
                    "end": spans[entity.stop - 1][1],
                    "score": float(best[entity.start : entity.stop].min()),
                }
                for entity in find_entities(tags)
            ]
            found.append(
                {
                    "label": " ".join(tags),
                    "score": float(best.min()) if len(best) else 1.0,
                    "scores": {},
                    "tags": tags,
                    "entities": entities,
                }
            )
        return found

    def tally(self, answers: Answers, truth: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
        """(entities found rightly, predicted and true entities together) of each row."""
        counts = np.zeros((rows, 2))
        starts = np.searchsorted(answers.row_of, np.arange(rows + 1))
        predicted = answers.predicted
        for row in range(rows):
            own = slice(starts[row], starts[row + 1])
            said = set(find_entities([self.labels[tag] for tag in predicted[own].tolist()]))
            true = set(find_entities([self.labels[tag] for tag in truth[own].tolist()]))
            counts[row] = len(said & true), len(said) + len(true)
        return counts

    def metric(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """F1 over entities whose kind and bounds are both right."""
        result: NDArray[np.float64] = np.divide(
            2 * sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] > 0
        )
        return result

    def _encode(self, inputs: Sequence[Words]) -> list[Encoding]:
        words = [split_words(given)[0] for given in inputs]
        return list(self.tokenizer.encode_batch(words, is_pretokenized=True))


def split_words(given: Words) -> tuple[list[str], list[tuple[int, int]]]:
    """Words of an input, and where each starts and ends: in characters of a text, or in words of a list."""
    if isinstance(given, str):
        matches = list(_WORDS.finditer(given))
        return [match.group() for match in matches], [match.span() for match in matches]
    return list(given), [(place, place + 1) for place in range(len(given))]


def _text_of(given: Words, start: int, end: int) -> str:
    return given[start:end] if isinstance(given, str) else " ".join(given[start:end])


def _first_pieces(words: Sequence[int | None]) -> list[int]:
    """1 where a piece is the first of its word."""
    before: int | None = None
    marks = []
    for word in words:
        marks.append(int(word is not None and word != before))
        before = word
    return marks
