"""Learning from the inside of a teacher: hidden states, and the relations of its attention.

Attention relations follow MiniLM (Wang et al., 2020; 2021): for queries, keys and values alike, the softmax
of the scaled products of every two positions. They have the shape of the sequence and not of the model, so
student and teacher may differ in width and in heads.

Padding counts in neither. Where attention is causal, a position's relations are those to itself and to what
is before it, as that is all that it ever looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.config.training import DistillationConfig
from equipoise.engines.architectures import find_class, read_config
from equipoise.errors import ConfigError

Tensor = Any
"""torch's; its own operators are annotated as Any."""

_SEPARATE = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"))
_JOINT = ("c_attn", "Wqkv")
_UNSEEN = -1e4
"""In place of a product that does not count; not infinite, as a difference of infinities is no number."""


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


def plan_guidance(
    settings: DistillationConfig, teacher: Path, depth: int, layers: Sequence[int]
) -> Guidance | None:
    """The guidance that a config asks for; None where it asks for none.

    Args:
        depth: the teacher's layers.
        layers: those that the student starts from.

    Raises:
        ConfigError: the map names a layer that the teacher has not.
    """
    if not settings.hidden_weight and not settings.relation_weight:
        return None
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
    import torch

    config = read_config(folder)
    with torch.device("meta"):
        model = find_class(model_class).from_config(config)
    found = find_projections(model)
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


def find_projections(model: Any) -> list[tuple[Any, ...]]:
    """Of each layer the modules that make queries, keys and values: three, or one that makes them all."""
    return [modules for _, modules in _find_attention(model)]


def is_causal(model: Any) -> bool:
    """Whether no position of a model looks at a later one, as its attention says itself."""
    owners = [owner for owner, _ in _find_attention(model)]
    return bool(owners) and all(getattr(owner, "is_causal", False) for owner in owners)


def _find_attention(model: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The attention of each layer, with its modules that make queries, keys and values."""
    found: list[tuple[Any, tuple[Any, ...]]] = []
    for module in model.modules():
        for names in _SEPARATE:
            if all(hasattr(module, name) for name in names):
                found.append((module, tuple(getattr(module, name) for name in names)))
        for name in _JOINT:
            if hasattr(module, name):
                found.append((module, (getattr(module, name),)))
    return found


class Guide:
    """Runs the teacher beside the student, and compares what both have inside.

    Args:
        student: the model before DeepSpeed wraps it; hooks stay on it.
        teacher: in evaluation mode, on the same device.
    """

    def __init__(self, guidance: Guidance, student: Any, teacher: Any) -> None:
        self.guidance, self.teacher = guidance, teacher
        self.causal = is_causal(teacher)
        self.options = {"output_hidden_states": True} if guidance.hidden_weight else {}
        self._seen: dict[tuple[str, int], list[Any]] = {}
        if guidance.relation_weight:
            for side, model in (("student", student), ("teacher", teacher)):
                layers = find_projections(model)
                for place in {pair[side == "teacher"] for pair in guidance.pairs}:
                    for part, module in enumerate(layers[place]):
                        module.register_forward_hook(self._keep(side, place, part))

    def loss(self, inputs: dict[str, Any], outputs: Any, mask: Tensor | None = None) -> Tensor:
        """Weighted sum of the mean losses over the layer pairs, for the batch that the student just saw.

        Args:
            mask: what is no padding, (rows, longest); None where nothing is padded.
        """
        import torch

        with torch.no_grad():
            told = self.teacher(**self._as_the_teacher_reads(inputs), **self.options)
        total: Any = 0.0
        for own, its in self.guidance.pairs:
            if self.guidance.hidden_weight:
                # The first hidden state is the embeddings'.
                mine, theirs = outputs.hidden_states[own + 1], told.hidden_states[its + 1]
                total = total + self.guidance.hidden_weight * hidden_loss(mine, theirs, mask)
            if self.guidance.relation_weight:
                pairs = zip(self._projected("student", own), self._projected("teacher", its), strict=True)
                heads = self.guidance.relation_heads
                losses = [relation_loss(mine, theirs, mask, heads, self.causal) for mine, theirs in pairs]
                total = total + self.guidance.relation_weight * sum(losses) / len(losses)
        return total / len(self.guidance.pairs)

    def _as_the_teacher_reads(self, inputs: dict[str, Any]) -> dict[str, Any]:
        import torch

        if self.guidance.teacher_ids is None:
            return inputs
        own = inputs["input_ids"]
        table = torch.tensor(self.guidance.teacher_ids, device=own.device)
        return {**inputs, "input_ids": table[own]}

    def _keep(self, side: str, place: int, part: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            # Recomputation in the backward pass comes here again; the first part starts anew.
            held = [] if part == 0 else self._seen.get((side, place), [])
            self._seen[side, place] = [*held, output]

        return hook

    def _projected(self, side: str, place: int) -> list[Any]:
        """Queries, keys and values, each (rows, longest, width)."""
        seen = self._seen[side, place]
        return list(seen[0].chunk(3, dim=-1)) if len(seen) == 1 else seen


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared difference of hidden states over the positions that are not padding.

    Both are (rows, longest, width), or (rows, channels, height, width) of an image model.

    Raises:
        ConfigError: the widths differ.
    """
    if student.shape != teacher.shape:
        raise ConfigError(
            f"hidden states of {tuple(student.shape[1:])} and {tuple(teacher.shape[1:])} cannot be compared",
            where="distillation.hidden_weight",
            remedy="use distillation.relation_weight, which takes any width",
        )
    squares = (student.float() - teacher.float()).square()
    if mask is None or squares.dim() != 3:
        return squares.mean()
    return (squares.mean(dim=-1) * mask).sum() / mask.sum().clamp(min=1)


def relation_loss(
    student: Tensor, teacher: Tensor, mask: Tensor | None, heads: int, causal: bool = False
) -> Tensor:
    """KL divergence of the student's relations from the teacher's (Wang et al., 2021, equations 3 to 6).

    Mean over heads and positions that are not padding; (rows, longest, width) each, widths may differ.

    Args:
        causal: leave out relations to later positions.
    """
    from torch.nn import functional

    mine, theirs = (_relations(projected, mask, heads, causal) for projected in (student, teacher))
    divergence = functional.kl_div(mine, theirs, log_target=True, reduction="none").sum(dim=-1).mean(dim=1)
    if mask is None:
        return divergence.mean()
    return (divergence * mask).sum() / mask.sum().clamp(min=1)


def _relations(projected: Tensor, mask: Tensor | None, heads: int, causal: bool) -> Tensor:
    """Log-softmax of the scaled products of every two positions, (rows, heads, longest, longest)."""
    import torch

    rows, longest, width = projected.shape
    split = projected.float().view(rows, longest, heads, width // heads).transpose(1, 2)
    products = split @ split.transpose(-1, -2) / (width // heads) ** 0.5
    if mask is not None:
        products = products.masked_fill(mask[:, None, None, :] == 0, _UNSEEN)
    if causal:
        later = torch.ones(longest, longest, dtype=torch.bool, device=projected.device).triu(1)
        products = products.masked_fill(later, _UNSEEN)
    return products.log_softmax(dim=-1)


def _parts(layer: tuple[Any, ...]) -> range:
    return range(3 if len(layer) == 1 else 1)


def _width(module: Any) -> int:
    return int(getattr(module, "out_features", None) or module.nf)
