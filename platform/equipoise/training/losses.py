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
    soft = soft_loss(logits, batch.teacher_logits, objective.temperature)
    return objective.soft_share * soft + (1 - objective.soft_share) * hard


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
