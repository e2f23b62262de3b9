"""Holds a student to the inside of its teacher: hidden states, and the relations of its attention.

Attention relations follow MiniLM (Wang et al., 2020; 2021): for queries, keys and values alike, the softmax
of the scaled products of every two positions. They have the shape of the sequence and not of the model, so
student and teacher may differ in width and in heads.

Padding counts in neither. Where attention is causal, a position's relations are those to itself and to what
is before it, as that is all that it ever looks at.
"""

from __future__ import annotations

from typing import Any

from equipoise.errors import ConfigError
from equipoise.training.guidance import Guidance
from equipoise.training.inside import PROJECTIONS, Inside, is_causal

Tensor = Any
"""torch's; its own operators are annotated as Any."""

_UNSEEN = -1e4
"""In place of a product that does not count; not infinite, as a difference of infinities is no number."""


class Guide:
    """Compares what student and teacher have inside.

    Args:
        student: the model before DeepSpeed wraps it; hooks stay on it.
        teacher: runs beside the student, in evaluation mode, on the same device; None where what it has
            inside is handed to each `loss`.
    """

    def __init__(self, guidance: Guidance, student: Any, teacher: Any = None) -> None:
        self.guidance, self.teacher = guidance, teacher
        self.causal = is_causal(student)
        self._student = Inside(student, (own for own, _ in guidance.pairs), **guidance.kinds)
        self._inside: Any = None if teacher is None else observe(guidance, teacher)
        self.options = self._student.options

    def loss(
        self,
        inputs: dict[str, Any],
        outputs: Any,
        mask: Tensor | None = None,
        told: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Weighted sum of the mean losses over the layer pairs, for the batch that the student just saw.

        Args:
            mask: what is no padding, (rows, longest); None where nothing is padded.
            told: what the teacher has inside for this batch, by the names of `Inside`; None asks it.
        """
        theirs = ask_inside(self.guidance, self.teacher, self._inside, inputs) if told is None else told
        mine = self._student.read(outputs)
        settings, heads = self.guidance, self.guidance.relation_heads
        total: Any = 0.0
        for own, its in settings.pairs:
            if settings.hidden_weight:
                loss = hidden_loss(mine[f"hidden.{own}"], theirs[f"hidden.{its}"], mask)
                total = total + settings.hidden_weight * loss
            if settings.relation_weight:
                losses = [
                    relation_loss(mine[f"{kind}.{own}"], theirs[f"{kind}.{its}"], mask, heads, self.causal)
                    for kind in PROJECTIONS
                ]
                total = total + settings.relation_weight * sum(losses) / len(losses)
        return total / len(settings.pairs)


def observe(guidance: Guidance, teacher: Any) -> Inside:
    """What is read of a teacher for some guidance."""
    return Inside(teacher, (its for _, its in guidance.pairs), **guidance.kinds)


def ask_inside(guidance: Guidance, teacher: Any, inside: Inside, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """What a teacher has inside for a batch of the student's inputs."""
    import torch

    if guidance.teacher_ids is not None:
        own = inputs["input_ids"]
        inputs = {**inputs, "input_ids": torch.tensor(guidance.teacher_ids, device=own.device)[own]}
    with torch.no_grad():
        return inside.read(teacher(**inputs, **inside.options))


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
