"""Text classification: one label a text (BERT family)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from tokenizers import Encoding
from tokenizers.models import WordPiece

from equipoise.data import Layout
from equipoise.tasks.one_label import OneLabel
from equipoise.tasks.pieces import PieceEncoder


class TextClassification(OneLabel, PieceEncoder):
    """A text is cut at `max_length` pieces; for the arguments see `PieceEncoder`."""

    name: ClassVar[str] = "text_classification"
    layout: ClassVar[Layout] = "text"
    model_class: ClassVar[str] = "AutoModelForSequenceClassification"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._first_words: re.Pattern[str] | None = None
        if isinstance(self.tokenizer.model, WordPiece):
            self._first_words = re.compile(rf"[ \t\r\n]*+(?:[^ \t\r\n]++[ \t\r\n]++){{{self.max_length}}}")

    def examples(self) -> list[str]:
        return ["a short text", "another text that is somewhat longer than the first"]

    def to_text(self, value: str) -> str:
        return value

    def _encode(self, inputs: Sequence[str]) -> list[Encoding]:
        """Encode, without reading further into a long text than its first `max_length` words.

        WordPiece splits at white space first and makes at least one token of a word, so the tokens
        past those words are cut off anyway. Words that vanish (control characters alone) are the
        exception; where they leave room, the whole texts are encoded.
        """
        if self._first_words is None:
            return list(self.tokenizer.encode_batch_fast(list(inputs)))
        heads = [self._head(text) for text in inputs]
        encodings: list[Encoding] = self.tokenizer.encode_batch_fast(heads)
        for text, head, encoding in zip(inputs, heads, encodings, strict=True):
            if len(head) < len(text) and sum(encoding.attention_mask) < self.max_length:
                return list(self.tokenizer.encode_batch_fast(list(inputs)))
        return encodings

    def _head(self, text: str) -> str:
        found = self._first_words.match(text) if self._first_words is not None else None
        return found.group() if found else text
