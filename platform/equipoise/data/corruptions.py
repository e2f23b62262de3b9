"""Seeded corruptions of text, for the robustness figure.

Each alters a share of the words (at least one) and leaves the white space between them alone. Typing
slips follow a QWERTY keyboard; a text in which no word can be altered that way comes back unchanged.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equipoise.data.image_corruptions import IMAGE_KINDS, corrupt_image
from equipoise.data.layout import Layout
from equipoise.errors import ConfigError

_SHARES = (0.1, 0.2)
_MARKS = ".,;:!?-'"
_KEY_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")

Alter = Callable[[str, np.random.Generator], str | None]
"""A word to its altered form; None where the word cannot be altered."""


def _neighbouring_keys() -> dict[str, str]:
    """Keys that a finger meant for each key may hit: its row's, and the two of each row beside it."""
    keys: dict[str, str] = {}
    for row, letters in enumerate(_KEY_ROWS):
        for column, letter in enumerate(letters):
            spots = [(row, column - 1), (row, column + 1), (row - 1, column), (row - 1, column + 1)]
            spots += [(row + 1, column - 1), (row + 1, column)]
            keys[letter] = "".join(
                _KEY_ROWS[r][c] for r, c in spots if 0 <= r < len(_KEY_ROWS) and 0 <= c < len(_KEY_ROWS[r])
            )
    return keys


_NEIGHBOURS = _neighbouring_keys()


def _typo(word: str, rng: np.random.Generator) -> str | None:
    spots = [index for index, letter in enumerate(word) if letter.lower() in _NEIGHBOURS]
    if not spots:
        return None
    at = spots[rng.integers(len(spots))]
    near = _NEIGHBOURS[word[at].lower()]
    key = near[rng.integers(len(near))]
    return word[:at] + (key.upper() if word[at].isupper() else key) + word[at + 1 :]


def _drop_character(word: str, rng: np.random.Generator) -> str | None:
    if len(word) < 2:
        return None
    at = int(rng.integers(len(word)))
    return word[:at] + word[at + 1 :]


def _swap_characters(word: str, rng: np.random.Generator) -> str | None:
    spots = [index for index in range(len(word) - 1) if word[index] != word[index + 1]]
    if not spots:
        return None
    at = spots[rng.integers(len(spots))]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _change_case(word: str, rng: np.random.Generator) -> str | None:
    del rng
    changed = word.lower() if word == word.upper() else word.upper()
    return changed if changed != word else None


def _change_punctuation(word: str, rng: np.random.Generator) -> str | None:
    """Lose the marks of a word that has some; gain one after a word that has none."""
    bare = word.strip(_MARKS)
    return bare if bare and bare != word else word + _MARKS[rng.integers(len(_MARKS))]


_BY_WORD: dict[str, Alter] = {
    "typos": _typo,
    "dropped_characters": _drop_character,
    "swapped_characters": _swap_characters,
    "case": _change_case,
    "punctuation": _change_punctuation,
}

KINDS = (*_BY_WORD, "word_order")

CORRUPTIONS: tuple[tuple[str, float], ...] = tuple((kind, share) for kind in KINDS for share in _SHARES)
"""Every (kind, share of the words) that robustness of texts is measured on."""


def corruptions_of(layout: Layout) -> tuple[tuple[str, float], ...]:
    """Every (kind, share) that robustness is measured on; words keep their order, each has its tag."""
    if layout == "image":
        return tuple((kind, share) for kind in IMAGE_KINDS for share in _SHARES)
    if layout == "words":
        return tuple((kind, share) for kind in _BY_WORD for share in _SHARES)
    return CORRUPTIONS


def corrupt(text: Any, kind: str, share: float, rng: np.random.Generator) -> Any:
    """Corrupt a share of a text's words, at least one.

    Args:
        text: any text; a list of words; an image as bytes; or a prompt and what follows it, of which
            the prompt is altered.
        kind: one of `KINDS`.
        share: share of the words to alter, 0 to 1; of `word_order`, to move.
        rng: every choice is drawn from it.

    Raises:
        ConfigError: no such kind.
    """
    if kind not in (known := IMAGE_KINDS if isinstance(text, np.ndarray) else KINDS):
        raise ConfigError("no such corruption", value=kind, remedy=f"one of {', '.join(known)}")
    if isinstance(text, np.ndarray):
        return corrupt_image(text, kind, share, rng)
    if isinstance(text, tuple):
        return (corrupt(text[0], kind, share, rng), *text[1:])
    if isinstance(text, list):
        words = list(text)
        _alter_words(words, list(range(len(words))), _BY_WORD[kind], share, rng)
        return words
    pieces = re.split(r"(\s+)", text)
    spots = [index for index, piece in enumerate(pieces) if piece and not piece.isspace()]
    if kind == "word_order":
        _move_words(pieces, spots, share, rng)
    else:
        _alter_words(pieces, spots, _BY_WORD[kind], share, rng)
    return "".join(pieces)


def corrupt_rows(
    texts: Sequence[Any], kind: str, share: float, seed: int, indices: Sequence[int] | None = None
) -> list[Any]:
    """Corrupt many texts; each depends on the seed, its row, the kind and the share alone.

    Args:
        texts: the texts.
        kind: one of `KINDS`.
        share: share of each text's words to alter.
        seed: of the run.
        indices: row number of each text; by default its position. A text that keeps its number is
            corrupted alike in whatever batch it stands.
    """
    numbers = range(len(texts)) if indices is None else indices
    variant = zlib.crc32(f"{kind} {share:g}".encode())
    return [
        corrupt(text, kind, share, np.random.default_rng([seed, int(number), variant]))
        for text, number in zip(texts, numbers, strict=True)
    ]


def _alter_words(
    pieces: list[str], spots: list[int], alter: Alter, share: float, rng: np.random.Generator
) -> None:
    wanted = max(1, round(share * len(spots)))
    for spot in rng.permutation(spots).tolist() if spots else []:
        changed = alter(pieces[spot], rng)
        if changed is not None:
            pieces[spot] = changed
            wanted -= 1
        if not wanted:
            return


def _move_words(pieces: list[str], spots: list[int], share: float, rng: np.random.Generator) -> None:
    """Exchange neighbouring words, each at most once; an exchange moves two."""
    wanted = max(1, round(share * len(spots) / 2))
    moved: set[int] = set()
    for at in rng.permutation(len(spots) - 1).tolist() if len(spots) > 1 else []:
        left, right = spots[at], spots[at + 1]
        if moved & {left, right} or pieces[left] == pieces[right]:
            continue
        pieces[left], pieces[right] = pieces[right], pieces[left]
        moved |= {left, right}
        wanted -= 1
        if not wanted:
            return
