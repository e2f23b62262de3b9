"""The teacher's measures that a recipe is held against before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.compression.channel_widths import ChannelWidths, read_channels
from equipoise.compression.structure import read_layers
from equipoise.engines.architectures import build_without_weights, read_config
from equipoise.engines.widths import Widths
from equipoise.errors import ConfigError, ModelError

_STEP = 8
"""Neurons and channels from a share are rounded to whole vectors of a core."""


@dataclass(frozen=True)
class Shape:
    """Layers of a teacher, those that must stay, its widths and channels; None where none are known.

    `unknown` says why there are no widths, `kind` is its type in transformers.
    """

    depth: int
    required: tuple[int, ...] = ()
    widths: Widths | None = None
    head_size: int = 1
    folder: Path | None = None
    channels: ChannelWidths | None = None
    kind: str = "model"
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

    def need_channels(self, where: str, value: object) -> ChannelWidths:
        """The channels.

        Raises:
            ConfigError: it has none that are known.
        """
        if self.channels is None:
            raise ConfigError(
                f"channels of a {self.kind} are not known",
                where=where,
                value=value,
                remedy="leave it at 1; heads and FFN neurons can be left out"
                if self.widths is not None
                else "leave it at 1; whole layers can be left out",
            )
        return self.channels

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
        widths: whether heads, neurons and channels are asked for; building the model without weights tells.
    """
    depth, required = read_layers(folder)
    if not widths:
        return Shape(depth, required, folder=folder)
    from equipoise.engines.narrowing import find_parts, read_widths

    config = read_config(folder)
    kind, channels = config.model_type, read_channels(config)
    model = build_without_weights(config, model_class)
    try:
        head_size = find_parts(model)[0].head_size
        return Shape(depth, required, read_widths(model), head_size, folder, channels, kind)
    except ModelError:
        return Shape(
            depth,
            required,
            folder=folder,
            channels=channels,
            kind=kind,
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
    kept = [min(count, max(_STEP, round(wanted * count / _STEP) * _STEP)) for count in whole]
    return None if kept == whole else tuple(kept)


def resolve_channels(wanted: float | Sequence[int], shape: Shape, where: str) -> tuple[int, ...] | None:
    """Channels that the stem and each stage keep, of a share in steps of 8; None where that is all of them.

    Raises:
        ConfigError: counts that the teacher has not, or that its config cannot say.
    """
    if wanted == 1.0:
        return None
    widths = shape.need_channels(where, wanted)
    if isinstance(wanted, float):
        return _shared_channels(wanted, widths, where)
    whole = ", ".join(map(str, widths.counts))
    if len(wanted) != len(widths.counts) or any(
        kept > count for kept, count in zip(wanted, widths.counts, strict=False)
    ):
        raise ConfigError(
            f"does not fit {whole}",
            where=where,
            value=list(wanted),
            remedy=f"give {len(widths.counts)} numbers, for the stem, each stage and a last projection, "
            "at most as many as it has",
        )
    even = [max(1, round(kept / step)) * step for kept, step in zip(wanted, widths.steps, strict=True)]
    if even != list(wanted):
        raise ConfigError(
            "are no multiples of what a bottleneck divides by",
            where=where,
            value=list(wanted),
            remedy=f"use {even}",
        )
    if not widths.keeps_shortcuts(wanted):
        raise ConfigError(
            f"would turn a shortcut of {whole} into another kind",
            where=where,
            value=list(wanted),
            remedy="give neighbours that are equal equal numbers, and others different ones",
        )
    return None if tuple(wanted) == widths.counts else tuple(wanted)


def _shared_channels(share: float, widths: ChannelWidths, where: str) -> tuple[int, ...] | None:
    def kept(share: float) -> tuple[int, ...]:
        return tuple(min(count, max(_STEP, round(share * count / _STEP) * _STEP)) for count in widths.counts)

    found = kept(share)
    if not widths.keeps_shortcuts(found):
        able = [place / 100 for place in range(1, 101) if widths.keeps_shortcuts(kept(place / 100))]
        raise ConfigError(
            f"would turn a shortcut of {', '.join(map(str, widths.counts))} into another kind",
            where=where,
            value=share,
            remedy=f"use {min(able, key=lambda other: abs(other - share)):g}, or give the numbers",
        )
    return None if found == widths.counts else found


def _counts(wanted: Sequence[int], whole: Sequence[int], where: str) -> tuple[int, ...] | None:
    if len(wanted) != len(whole) or any(kept > count for kept, count in zip(wanted, whole, strict=False)):
        raise ConfigError(
            f"does not fit layers of {', '.join(map(str, whole))}",
            where=where,
            value=list(wanted),
            remedy="give one number a kept layer, at most as many as it has",
        )
    return None if list(wanted) == list(whole) else tuple(wanted)
