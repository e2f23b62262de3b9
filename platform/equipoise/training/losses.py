"""What a training minimizes: the labels' loss, the teacher's, or a share of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equipoise.tasks import IGNORED
from equipoise.training.examples import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """How the losses of one job are weighed; the labels alone by default."""

    temperature: float = 1.0
    soft_share: float = 0.0


def compute_loss(logits: Tensor, batch: Batch, objective: Objective) -> Tensor:
    """Mean loss over the places of a batch; 0 where it has none.

    Args:
        logits: the model's, shape (rows, classes) or (rows, longest, classes).
    """
    asked = batch.targets != IGNORED
    logits, targets = logits[asked].float(), batch.targets[asked]
    hard = hard_loss(logits, targets)
    if batch.teacher_logits is None or objective.soft_share == 0:
        return hard
    if batch.teacher_classes is None:
        soft = soft_loss(logits, batch.teacher_logits, objective.temperature)
    else:
        soft = top_loss(logits, batch.teacher_logits, batch.teacher_classes)
    return objective.soft_share * soft + (1 - objective.soft_share) * hard


def count_right(logits: Tensor, targets: Tensor) -> Tensor:
    """How many places, of those that are asked for, have their target as the likeliest class; a scalar.

    Args:
        logits: the model's, shape (rows, classes) or (rows, longest, classes).
    """
    # IGNORED is no class, so that a place that is not asked for is never right.
    return (logits.detach().argmax(dim=-1) == targets).sum()


def hard_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (places, classes) against class numbers (places,)."""
    from torch.nn import functional

    return functional.cross_entropy(logits, targets, reduction="sum") / max(len(targets), 1)


def soft_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Mean KL divergence of the student's softened distribution from the teacher's (Hinton et al., 2015).

    Both are (places, classes). The gradient shrinks with the temperature squared, which is why it is
    multiplied back.
    """
    from torch.nn import functional

    divergence = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=-1),
        functional.log_softmax(teacher_logits.float() / temperature, dim=-1),
        log_target=True,
        reduction="sum",
    )
    return temperature**2 * divergence / max(len(logits), 1)


def top_loss(logits: Tensor, teacher: Tensor, classes: Tensor) -> Tensor:
    """Mean KL divergence from the teacher over its likeliest classes and one more for all the others.

    It is at most the divergence over all classes, and the same where the student spreads what is left
    over the others as the teacher does. There is no temperature: what one leaves to the others cannot be
    told from the sum that is kept.

    Args:
        logits: of the student, (places, classes).
        teacher: log-likelihoods of the kept classes and of the others together, (places, kept + 1).
        classes: the kept classes, (places, kept).
    """
    import torch
    from torch.nn import functional

    chosen = classes.long()
    total = logits.logsumexp(dim=-1, keepdim=True)
    others = logits.scatter(-1, chosen, float("-inf")).logsumexp(dim=-1, keepdim=True)
    student = torch.cat([logits.gather(-1, chosen), others], dim=-1) - total
    divergence = functional.kl_div(student, teacher.float(), log_target=True, reduction="sum")
    return divergence / max(len(logits), 1)
