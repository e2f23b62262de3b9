"""What one row of data is; readers, checks and corruptions follow from it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Layout = Literal["text", "words", "prompt", "image"]
"""`text`: a string and a label. `words`: a list of words and a tag each. `prompt`: a prompt and what
follows it, no label. `image`: an array of (height, width) or (height, width, 3) bytes and a label."""

OUTSIDE = "O"
"""Tag of a word that belongs to no entity."""


def row_key(value: Any) -> str:
    """A row's input as a string that two rows share only if they are the same."""
    if isinstance(value, str):
        return value
    if hasattr(value, "tobytes"):
        return hashlib.sha256(f"{value.shape}".encode() + value.tobytes()).hexdigest()
    return "\x00".join(value)


def row_digests(values: Iterable[Any]) -> NDArray[np.void]:
    """16 bytes of hash of each input, by which repeats are found without holding texts; shape (rows,)."""
    found = bytearray()
    for value in values:
        found += hashlib.blake2b(row_key(value).encode(), digest_size=16).digest()
    return np.frombuffer(found, dtype=[("high", "<u8"), ("low", "<u8")])


def row_length(value: Any) -> int:
    """Size of an input: characters, words, characters of both parts, or pixels."""
    if hasattr(value, "shape"):
        return int(value.shape[0] * value.shape[1])
    if isinstance(value, tuple):
        return sum(len(part) for part in value)
    return len(value)


def is_empty(value: Any) -> bool:
    """Whether there is nothing in an input to answer about."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, tuple):
        return not value[-1].strip()
    return row_length(value) == 0


def with_prompt(value: tuple[str, str]) -> tuple[str, str]:
    """A prompt and what follows it; a text without a prompt is cut into halves at a white space.

    The halves put together are the text again. A text of one word stays without a prompt.
    """
    prompt, text = value
    if prompt.strip():
        return value
    spots = [match.start() for match in re.finditer(r"\s+(?=\S)", text) if text[: match.start()].strip()]
    if not spots:
        return value
    middle = min(spots, key=lambda spot: abs(spot - len(text) // 2))
    return prompt + text[:middle], text[middle:]


def label_names(label: Any) -> Sequence[str]:
    """The labels that a row carries: one, or one a word."""
    return (label,) if isinstance(label, str) else label


def stratum(label: Any) -> str:
    """The group that a row is drawn from: its label, or its first tag that is not `O`."""
    if isinstance(label, str):
        return label
    return next((tag for tag in label if tag != OUTSIDE), OUTSIDE)
