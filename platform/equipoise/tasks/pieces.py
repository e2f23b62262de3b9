"""What the families of the BERT kind share: texts and words cut into pieces by a Rust tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from equipoise.config.model import ModelConfig
from equipoise.errors import BundleError
from equipoise.tasks.task import Arrays

TOKENIZER_FILE = "tokenizer.json"

LENGTH_STEP = 4
"""Rows are padded to a multiple of so many pieces: an engine prepares and keeps kernels for each shape that
it meets, and few shapes are all met soon and take little memory."""


class PieceEncoder:
    """Encodes with the Rust tokenizer alone, so that a replica needs neither transformers nor torch.

    A family says in `_encode` how its inputs are handed to the tokenizer.

    Args:
        tokenizer: a fast tokenizer; its padding and truncation are set here.
        labels: label names in the order of the logits.
        max_length: longest input in pieces.
        temperature: divides the logits before the softmax; fitted on validation.
        inputs: names of the arrays that the model takes.
    """

    name: ClassVar[str]
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
        tokenizer.enable_truncation(max_length)
        known = tokenizer.padding or {"pad_id": tokenizer.token_to_id("[PAD]") or 0, "pad_token": "[PAD]"}
        tokenizer.enable_padding(
            pad_id=known["pad_id"],
            pad_token=known["pad_token"],
            # No row may grow beyond the places that the model has.
            pad_to_multiple_of=LENGTH_STEP if max_length % LENGTH_STEP == 0 else None,
        )

    @classmethod
    def create(cls, folder: Path, labels: Sequence[str], settings: ModelConfig) -> Self:
        """From a transformers folder with tokenizer.json and config.json."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        inputs = ["input_ids", "attention_mask"]
        if config.get("type_vocab_size", 0) > 1:
            inputs.append("token_type_ids")
        limit = longest_input(config, settings.max_length)
        return cls(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), labels, limit, inputs=inputs)

    @classmethod
    def load(cls, folder: Path, description: dict[str, Any]) -> Self:
        try:
            return cls(
                Tokenizer.from_file(str(folder / TOKENIZER_FILE)),
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

    def from_text(self, text: str) -> str:
        return text

    def encode(self, inputs: Sequence[Any]) -> Arrays:
        """To int64 arrays of shape (batch, longest), the longest rounded up to LENGTH_STEP."""
        return self._arrays(self._encode(inputs))

    def lengths(self, inputs: Sequence[Any]) -> NDArray[np.int64]:
        """Pieces of each input, special ones included; shape (batch,)."""
        return np.array([sum(e.attention_mask) for e in self._encode(inputs)], dtype=np.int64)

    def _encode(self, inputs: Sequence[Any]) -> list[Encoding]:
        raise NotImplementedError

    def _arrays(self, encodings: Sequence[Encoding]) -> Arrays:
        arrays: Arrays = {"input_ids": np.array([e.ids for e in encodings], dtype=np.int64)}
        if "attention_mask" in self.inputs:
            arrays["attention_mask"] = np.array([e.attention_mask for e in encodings], dtype=np.int64)
        if "token_type_ids" in self.inputs:
            arrays["token_type_ids"] = np.array([e.type_ids for e in encodings], dtype=np.int64)
        return arrays


def longest_input(config: dict[str, Any], asked: int) -> int:
    """`asked`, or the model's positions where they are fewer; a GPT-2 calls them `n_positions`."""
    return min(asked, config.get("max_position_embeddings") or config.get("n_positions") or asked)
