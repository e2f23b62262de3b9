"""The teacher's measures that a recipe is held against before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.compression.structure import read_layers
from equipoise.engines.architectures import find_class, read_config
from equipoise.engines.widths import Widths
from equipoise.errors import ConfigError, ModelError

_FFN_STEP = 8
"""Widths from a share are rounded to whole vectors of a core."""


@dataclass(frozen=True)
class Shape:
    """Layers of a teacher, those that must stay, and its widths; each None where it has none that is known.

    `unknown` says why there are none.
    """

    depth: int
    required: tuple[int, ...] = ()
    widths: Widths | None = None
    head_size: int = 1
    folder: Path | None = None
    unknown: str = "its heads and neurons are not known"

    def need_widths(self, where: str, value: object) -> Widths:
        """The widths.

        Raises:
            ConfigError: they are not known.
        """
        if self.widths is None:
            raise ConfigError(
                self.unknown, where=where, value=value, remedy="leave it at 1; whole layers can be left out"
            )
        return self.widths

    def check_vocabulary(self, where: str) -> None:
        """Raise ConfigError unless the vocabulary can be trimmed."""
        from tokenizers import Tokenizer

        from equipoise.compression.vocabulary import check_trimmable

        file = None if self.folder is None else self.folder / "tokenizer.json"
        check_trimmable(
            Tokenizer.from_file(str(file)) if file is not None and file.is_file() else None, where
        )


def read_shape(folder: Path, model_class: str, *, widths: bool) -> Shape:
    """Measures of the model in a folder.

    Args:
        widths: whether heads and neurons are asked for; they take building the model without weights.
    """
    depth, required = read_layers(folder)
    if not widths:
        return Shape(depth, required, folder=folder)
    import torch

    from equipoise.engines.narrowing import find_parts, read_widths

    config = read_config(folder)
    with torch.device("meta"):
        model = find_class(model_class).from_config(config)
    try:
        return Shape(depth, required, read_widths(model), find_parts(model)[0].head_size, folder)
    except ModelError:
        return Shape(
            depth,
            required,
            folder=folder,
            unknown=f"heads and neurons of a {config.model_type} are not known",
        )


def resolve_heads(
    wanted: float | Sequence[int], layers: Sequence[int], shape: Shape, where: str
) -> tuple[int, ...] | None:
    """Heads that each kept layer keeps; None where that is all of them.

    Raises:
        ConfigError: a share that is no whole number of heads, or more heads than there are.
    """
    if wanted == 1.0:
        return None
    widths = shape.need_widths(where, wanted)
    whole = [widths.heads[layer] for layer in layers]
    if not isinstance(wanted, float):
        return _counts(wanted, whole, where)
    for count in whole:
        exact = wanted * count
        if abs(exact - round(exact)) > 1e-6 or round(exact) < 1:
            near = min(range(1, count + 1), key=lambda kept: (abs(kept - exact), kept))
            raise ConfigError(
                f"is no whole number of {count} heads",
                where=where,
                value=wanted,
                remedy=f"use {near / count:.6g} ({near} heads)",
            )
    return tuple(round(wanted * count) for count in whole)


def resolve_ffn(
    wanted: float | Sequence[int], layers: Sequence[int], shape: Shape, where: str
) -> tuple[int, ...] | None:
    """Neurons that each kept layer keeps, of a share in steps of 8; None where that is all of them.

    Raises:
        ConfigError: more neurons than there are.
    """
    if wanted == 1.0:
        return None
    widths = shape.need_widths(where, wanted)
    whole = [widths.ffn[layer] for layer in layers]
    if not isinstance(wanted, float):
        return _counts(wanted, whole, where)
    kept = [min(count, max(_FFN_STEP, round(wanted * count / _FFN_STEP) * _FFN_STEP)) for count in whole]
    return None if kept == whole else tuple(kept)


def _counts(wanted: Sequence[int], whole: Sequence[int], where: str) -> tuple[int, ...] | None:
    if len(wanted) != len(whole) or any(kept > count for kept, count in zip(wanted, whole, strict=False)):
        raise ConfigError(
            f"does not fit layers of {', '.join(map(str, whole))}",
            where=where,
            value=list(wanted),
            remedy="give one number a kept layer, at most as many as it has",
        )
    return None if list(wanted) == list(whole) else tuple(wanted)
