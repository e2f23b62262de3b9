"""Text classification: one label a text (BERT family)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece

from equipoise.config.model import ModelConfig
from equipoise.data import Layout
from equipoise.errors import BundleError
from equipoise.tasks.answers import Answers
from equipoise.tasks.scores import share, softmax, tally_hits
from equipoise.tasks.task import Arrays

TOKENIZER_FILE = "tokenizer.json"


class TextClassification:
    """Encodes with the Rust tokenizer alone, so that a replica needs neither transformers nor torch.

    Args:
        tokenizer: a fast tokenizer; its padding and truncation are set here.
        labels: label names in the order of the logits.
        max_length: longest input in tokens.
        temperature: divides the logits before the softmax; fitted on validation.
        inputs: names of the arrays that the model takes.
    """

    name: ClassVar[str] = "text_classification"
    layout: ClassVar[Layout] = "text"
    metric_name: ClassVar[str] = "accuracy"
    model_class: ClassVar[str] = "AutoModelForSequenceClassification"
    files: ClassVar[tuple[str, ...]] = ("config.json", "model.safetensors", TOKENIZER_FILE)
    ragged: ClassVar[bool] = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        max_length: int,
        temperature: float = 1.0,
        inputs: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids"),
    ) -> None:
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.max_length = max_length
        self.temperature = temperature
        self.inputs = tuple(inputs)
        self._first_words: re.Pattern[str] | None = None
        if isinstance(tokenizer.model, WordPiece):
            self._first_words = re.compile(rf"[ \t\r\n]*+(?:[^ \t\r\n]++[ \t\r\n]++){{{max_length}}}")
        pad_to_longest(tokenizer, max_length)

    @classmethod
    def create(cls, folder: Path, labels: Sequence[str], settings: ModelConfig) -> TextClassification:
        """From a transformers folder with tokenizer.json and config.json."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        inputs = ["input_ids", "attention_mask"]
        if config.get("type_vocab_size", 0) > 1:
            inputs.append("token_type_ids")
        limit = min(settings.max_length, config.get("max_position_embeddings", settings.max_length))
        return cls(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), labels, limit, inputs=inputs)

    @classmethod
    def load(cls, folder: Path, description: dict[str, Any]) -> TextClassification:
        try:
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            return cls(
                tokenizer,
                description["labels"],
                description["max_length"],
                description["temperature"],
                description["inputs"],
            )
        except KeyError as error:
            raise BundleError(f"task entry lacks {error}", where=str(folder)) from error

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "labels": list(self.labels),
            "max_length": self.max_length,
            "temperature": self.temperature,
            "inputs": list(self.inputs),
        }

    def save(self, folder: Path) -> None:
        self.tokenizer.save(str(folder / TOKENIZER_FILE))

    def encode(self, inputs: Sequence[str]) -> Arrays:
        """Texts to int64 arrays of shape (batch, longest)."""
        encodings = self._encode(inputs)
        arrays: Arrays = {"input_ids": np.array([e.ids for e in encodings], dtype=np.int64)}
        if "attention_mask" in self.inputs:
            arrays["attention_mask"] = np.array([e.attention_mask for e in encodings], dtype=np.int64)
        if "token_type_ids" in self.inputs:
            arrays["token_type_ids"] = np.array([e.type_ids for e in encodings], dtype=np.int64)
        return arrays

    def lengths(self, inputs: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, special ones included; shape (batch,)."""
        encodings = self._encode(inputs)
        return np.array([sum(e.attention_mask) for e in encodings], dtype=np.int64)

    def _encode(self, inputs: Sequence[str]) -> list[Encoding]:
        """Encode, without reading further into a long text than its first `max_length` words.

        WordPiece splits at white space first and makes at least one token of a word, so the tokens
        past those words are cut off anyway. Words that vanish (control characters alone) are the
        exception; where they leave room, the whole texts are encoded.
        """
        if self._first_words is None:
            return self.tokenizer.encode_batch_fast(list(inputs))
        heads = [self._head(text) for text in inputs]
        encodings = self.tokenizer.encode_batch_fast(heads)
        for text, head, encoding in zip(inputs, heads, encodings, strict=True):
            if len(head) < len(text) and sum(encoding.attention_mask) < self.max_length:
                return self.tokenizer.encode_batch_fast(list(inputs))
        return encodings

    def _head(self, text: str) -> str:
        found = self._first_words.match(text) if self._first_words is not None else None
        return found.group() if found else text

    def examples(self) -> list[str]:
        return ["a short text", "another text that is somewhat longer than the first"]

    def from_text(self, text: str) -> str:
        return text

    def to_text(self, value: str) -> str:
        return value

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

    def decode(self, outputs: Arrays, arrays: Arrays, inputs: Sequence[str]) -> list[dict[str, Any]]:
        """Logits of shape (batch, labels) to labels with calibrated scores."""
        del arrays, inputs
        scores = softmax(outputs["logits"] / self.temperature)
        best = scores.argmax(axis=1)
        return [
            {
                "label": self.labels[index],
                "score": float(row[index]),
                "scores": dict(zip(self.labels, row.tolist(), strict=True)),
            }
            for index, row in zip(best.tolist(), scores, strict=True)
        ]

    def tally(self, answers: Answers, truth: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
        """(hits, 1) of each row."""
        return tally_hits(answers, truth, rows)

    def metric(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Accuracy."""
        return share(sums)


def pad_to_longest(tokenizer: Tokenizer, max_length: int) -> None:
    """Cut inputs at `max_length` pieces and pad a batch to its longest, with the tokenizer's own padding."""
    tokenizer.enable_truncation(max_length)
    if tokenizer.padding is None:
        pad = tokenizer.token_to_id("[PAD]")
        tokenizer.enable_padding(pad_id=pad or 0, pad_token="[PAD]")  # noqa: S106 - a vocabulary entry
    else:
        tokenizer.enable_padding(pad_id=tokenizer.padding["pad_id"], pad_token=tokenizer.padding["pad_token"])
