"""Channels of a convolutional network: scored, and taken away for real through torch-pruning's graph.

The graph (Fang et al., 2023, "DepGraph: Towards Any Structural Pruning") says which convolutions share their
channels through shortcuts, and what reads them. How many of each group stay is what the model of the smaller
config has there; so the result is a plain model of that config.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import nn

from equipoise.compression.channel_widths import set_channels
from equipoise.compression.importance import most_important, squared_slopes
from equipoise.config.search import Importance
from equipoise.errors import ModelError
from equipoise.training.examples import Examples

_READS = "prune_in_channels"


class ChannelScores(BaseModel):
    """Importance by group, each under the name of the first convolution that makes its channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that stay or go together: the convolutions that make them, the layers that read them."""

    name: str
    channels: int
    readers: tuple[nn.Module, ...]
    whole: Any
    """torch-pruning's own group, of all channels."""


def find_groups(model: Any, pixels: NDArray[np.float32]) -> list[ChannelGroup]:
    """Every group of channels of a model.

    Args:
        pixels: an image, (1, channels, height, width).
    """
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(
        model.eval(), torch.from_numpy(pixels), output_transform=lambda outputs: outputs.logits.sum()
    )
    names = {module: name for name, module in model.named_modules()}
    found = []
    for whole in graph.get_all_groups(root_module_types=[nn.Conv2d]):
        parts = [(dependency.target.module, dependency.handler.__name__) for dependency, _ in whole]
        readers = dict.fromkeys(module for module, handler in parts if handler == _READS)
        makers = [
            names[module] for module, _ in parts if isinstance(module, nn.Conv2d) and module not in readers
        ]
        found.append(
            ChannelGroup(min(makers), whole[0].dep.target.module.out_channels, tuple(readers), whole)
        )
    return sorted(found, key=lambda group: group.name)


def score_channels(
    model: Any, by: Importance, examples: Examples, pixels: NDArray[np.float32]
) -> ChannelScores:
    """Scores of every channel of a trained model.

    `taylor` has one gate for all that read a channel: closed, it is as if the channel were gone. `magnitude`
    is the squared norm of the weights that make it and read it, normalizations left out.

    Args:
        examples: encoded training rows with their labels; `magnitude` does not read them.
        pixels: an image, (1, channels, height, width).
    """
    groups = find_groups(model, pixels)
    if by == "taylor":
        gates = {group.name: (group.readers, group.channels) for group in groups}
        return ChannelScores(groups=squared_slopes(model, gates, examples))
    import torch_pruning

    norm = torch_pruning.importance.GroupMagnitudeImportance(
        p=2, group_reduction="sum", normalizer=None, target_types=[nn.Conv2d, nn.Linear]
    )
    return ChannelScores(groups={group.name: tuple(norm(group.whole).tolist()) for group in groups})


def keep_channels(
    model: Any, counts: Sequence[int], scores: ChannelScores, pixels: NDArray[np.float32]
) -> None:
    """Leave the most important channels of each group, and set the config to match.

    Args:
        counts: of the stem and the stages, as `channel_widths.read_channels` has them.
        pixels: an image, (1, channels, height, width).

    Raises:
        ModelError: the counts are of no model of that build, or the scores of another model.
    """
    config = copy.deepcopy(model.config)
    set_channels(config, counts)
    with torch.device("meta"):
        smaller = type(model)(config)
    for group in find_groups(model, pixels):
        known = scores.groups.get(group.name, ())
        if len(known) != group.channels:
            raise ModelError("has no scores of its own", where="channels", value=group.name)
        kept = set(most_important(known, smaller.get_submodule(group.name).out_channels))
        if len(kept) < group.channels:
            group.whole.prune([channel for channel in range(group.channels) if channel not in kept])
    set_channels(model.config, counts)
    wanted = {name: value.shape for name, value in smaller.state_dict().items()}
    if wanted != {name: value.shape for name, value in model.state_dict().items()}:
        raise ModelError("is no model that its config can say", where="channels", value=list(counts))
