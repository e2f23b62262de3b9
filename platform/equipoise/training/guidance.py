"""What a student is held to of its teacher's inside, as a config asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from equipoise.config.training import DistillationConfig
from equipoise.engines.architectures import build_without_weights, read_config
from equipoise.errors import ConfigError
from equipoise.training.inside import find_projections, inside_names


@dataclass(frozen=True)
class Guidance:
    """What a student is held to beside the teacher's logits.

    `pairs` are layers, (student's, teacher's), both counted from 0.
    """

    teacher: str
    pairs: tuple[tuple[int, int], ...]
    hidden_weight: float = 0.0
    relation_weight: float = 0.0
    relation_heads: int = 12
    teacher_ids: tuple[int, ...] | None = None
    """The teacher's id of each piece of the student's vocabulary; None where they are the same."""

    @property
    def kinds(self) -> dict[str, bool]:
        """What is read of both models, as `Inside` takes it."""
        return {"hidden": self.hidden_weight > 0, "projections": self.relation_weight > 0}

    @property
    def names(self) -> tuple[str, ...]:
        """What is read of the teacher, as `Inside` names it."""
        return inside_names((its for _, its in self.pairs), **self.kinds)


def find_guidance(
    settings: DistillationConfig,
    teacher: Path,
    layers: Sequence[int],
    teacher_ids: Sequence[int] | None = None,
) -> Guidance | None:
    """The guidance of a student of some teacher's layers; None where the config asks for none.

    Of a ResNet the layers are its stages, which every student keeps.

    Args:
        teacher_ids: the teacher's id of each piece of the student's vocabulary, where that is another.

    Raises:
        ConfigError: the map names a layer that the teacher has not.
    """
    if not settings.guided:
        return None
    config = read_config(teacher)
    if hasattr(config, "depths"):
        depth, layers = len(config.depths), range(len(config.depths))
    else:
        depth = int(config.num_hidden_layers)
    found = plan_guidance(settings, teacher, depth, layers)
    return found if teacher_ids is None else replace(found, teacher_ids=tuple(teacher_ids))


def count_passes(settings: DistillationConfig, teacher: Path, students: Iterable[Sequence[int]]) -> int:
    """Times that the teacher goes over the rows for what it has inside: once a student that is held to
    layers that none before it was. 0 where the config asks for none, or keeps none.

    Args:
        students: of each the teacher's layers that it starts from.
    """
    known: set[str] = set()
    passes = 0
    for layers in students if settings.states_gib else ():
        guidance = find_guidance(settings, teacher, layers)
        names = set(guidance.names) if guidance is not None else set()
        passes += bool(names - known)
        known |= names
    return passes


def plan_guidance(settings: DistillationConfig, teacher: Path, depth: int, layers: Sequence[int]) -> Guidance:
    """The guidance that a config asks for, its layers paired by the map.

    Args:
        depth: the teacher's layers.
        layers: those that the student starts from.

    Raises:
        ConfigError: the map names a layer that the teacher has not.
    """
    own = len(layers)
    pairs: tuple[tuple[int, int], ...]
    if settings.layer_map == "last":
        pairs = ((own - 1, depth - 1),)
    elif settings.layer_map == "uniform":
        pairs = tuple((place, (place + 1) * depth // own - 1) for place in range(own))
    else:
        pairs = tuple((place, wanted) for place, wanted in enumerate(settings.layer_map) if place < own)
        beyond = [wanted for _, wanted in pairs if wanted >= depth]
        if beyond:
            raise ConfigError(
                f"the teacher has {depth} layers",
                where="distillation.layer_map",
                value=beyond,
                remedy=f"use 0 to {depth - 1}",
            )
    return Guidance(
        str(teacher), pairs, settings.hidden_weight, settings.relation_weight, settings.relation_heads
    )


def check_guidance(settings: DistillationConfig, folder: Path, model_class: str) -> None:
    """Refuse attention relations for a model that has no attention, before anything is trained.

    Raises:
        ConfigError: no queries, keys and values, or they do not divide into `relation_heads`.
    """
    if not settings.relation_weight:
        return
    config = read_config(folder)
    found = find_projections(build_without_weights(config, model_class))
    if not found:
        raise ConfigError(
            f"a {config.model_type} has no attention to take relations from",
            where="distillation.relation_weight",
            value=settings.relation_weight,
            remedy="use distillation.hidden_weight, or logits alone",
        )
    for width in {_width(module) // len(_parts(found[0])) for module in found[0]}:
        if width % settings.relation_heads:
            raise ConfigError(
                f"does not divide the width {width} of a {config.model_type}'s attention",
                where="distillation.relation_heads",
                value=settings.relation_heads,
                remedy="use a divisor of it, such as its number of attention heads",
            )


def _parts(layer: tuple[Any, ...]) -> range:
    return range(3 if len(layer) == 1 else 1)


def _width(module: Any) -> int:
    return int(getattr(module, "out_features", None) or module.nf)
