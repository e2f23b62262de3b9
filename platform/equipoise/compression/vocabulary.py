"""A vocabulary of what a task's data uses, and the embedding table of the same rows.

WordPiece takes the longest known piece from the left, so a text whose pieces all stay is cut as before.
Special pieces and every single character stay too, inside a word and at its start: any word that could be
cut can still be cut, into shorter pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from torch import nn

from equipoise.errors import ConfigError

_ID_KEYS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "unk_token_id")


def check_trimmable(tokenizer: Tokenizer | None, where: str = "search.vocabulary") -> None:
    """Raise unless the vocabulary can be trimmed.

    Raises:
        ConfigError: there is none, or it is not of WordPiece.
    """
    if tokenizer is None or not isinstance(tokenizer.model, WordPiece):
        kind = "no tokenizer" if tokenizer is None else type(tokenizer.model).__name__
        raise ConfigError(
            f"only a WordPiece vocabulary can be trimmed, the teacher has {kind}",
            where=where,
            value="task",
            remedy="use full",
        )


def kept_ids(tokenizer: Tokenizer, used: Iterable[int]) -> list[int]:
    """Ids that stay, ascending: those used, special ones, and single characters.

    Args:
        used: ids of the pieces that the training rows are made of.
    """
    wanted = set(used) | set(tokenizer.get_added_tokens_decoder())
    model = json.loads(tokenizer.to_str())["model"]
    prefix = model["continuing_subword_prefix"]
    wanted |= {
        place
        for piece, place in model["vocab"].items()
        if len(piece) == 1 or (piece.startswith(prefix) and len(piece) == len(prefix) + 1)
    }
    wanted.add(model["vocab"][model["unk_token"]])
    return sorted(wanted)


def trim_tokenizer(tokenizer: Tokenizer, kept: Sequence[int]) -> Tokenizer:
    """The tokenizer with the kept pieces alone; the place of an old id in `kept` is its new id."""
    new = {old: place for place, old in enumerate(kept)}
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {piece: new[old] for piece, old in vocabulary.items() if old in new}
    for token in content["added_tokens"]:
        token["id"] = new[token["id"]]
    if content.get("padding"):
        content["padding"]["pad_id"] = new[content["padding"]["pad_id"]]
    _renumber_processor(content.get("post_processor") or {}, new)
    return Tokenizer.from_str(json.dumps(content))


def trim_embeddings(model: Any, kept: Sequence[int]) -> None:
    """Leave the rows of the kept ids in the embedding table, and set the config to match."""
    old: nn.Embedding = model.get_input_embeddings()
    rows = old.weight.detach()[torch.as_tensor(list(kept))].clone()
    new = {place: number for number, place in enumerate(kept)}
    padding = None if old.padding_idx is None else new[old.padding_idx]
    model.set_input_embeddings(nn.Embedding(len(kept), old.embedding_dim, padding_idx=padding, _weight=rows))
    config = model.config
    config.vocab_size = len(kept)
    for key in _ID_KEYS:
        value = getattr(config, key, None)
        if isinstance(value, int):
            setattr(config, key, new.get(value))


def _renumber_processor(processor: dict[str, Any], new: dict[int, int]) -> None:
    """Ids in a template, or in the pairs of BERT's and RoBERTa's own processors."""
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [new[old] for old in token["ids"]]
    for name in ("sep", "cls"):
        if name in processor:
            text, old = processor[name]
            processor[name] = [text, new[old]]
    for part in processor.get("processors", []):
        _renumber_processor(part, new)
