"""How many channels a convolutional network has, as its config says them: of the stem and of each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ChannelWidths:
    """Channels of the stem, of each stage, and of the last projection where there is one.

    Each count has to be a multiple of its place in `steps`. At the places of `borders` a count that equals
    the next one makes a block's shortcut the identity: they stay equal, or stay unequal.
    """

    counts: tuple[int, ...]
    steps: tuple[int, ...]
    borders: tuple[int, ...] = ()

    def keeps_shortcuts(self, counts: Sequence[int]) -> bool:
        """Whether fewer channels leave each shortcut what it is."""
        whole = self.counts
        return all(
            (counts[place] == counts[place + 1]) is (whole[place] == whole[place + 1])
            for place in self.borders
        )


def read_channels(config: Any) -> ChannelWidths | None:
    """The channels of a model by its config; None of a model that is not known."""
    if config.model_type == "resnet":
        # The inner convolutions of a bottleneck have a quarter of its channels.
        step = 4 if config.layer_type == "bottleneck" else 1
        return ChannelWidths(
            (config.embedding_size, *config.hidden_sizes),
            (1, *(step for _ in config.hidden_sizes)),
            () if config.downsample_in_first_stage else (0,),
        )
    if config.model_type == "efficientnet_lite":
        counts = (config.embedding_size, *config.hidden_sizes, config.pooled_size)
        same_size = tuple(stage for stage, stride in enumerate(config.strides) if stride == 1)
        return ChannelWidths(counts, (1,) * len(counts), same_size)
    return None


def set_channels(config: Any, counts: Sequence[int]) -> None:
    """Let a config say other counts, in the order of `read_channels`."""
    stages = len(config.hidden_sizes)
    config.embedding_size = counts[0]
    config.hidden_sizes = list(counts[1 : 1 + stages])
    if len(counts) > 1 + stages:
        config.pooled_size = counts[-1]
