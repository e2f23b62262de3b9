from __future__ import annotations

import numpy as np
import pytest
import torch

from equipoise.tasks import IGNORED
from equipoise.training.examples import Batch, Examples, take_batch
from equipoise.training.losses import Objective, compute_loss, count_right, hard_loss, soft_loss


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_labels_alone_are_the_mean_cross_entropy() -> None:
    logits, targets = draw(5, 3), torch.tensor([0, 2, 1, 1, 0])
    expected = torch.nn.functional.cross_entropy(logits, targets)
    torch.testing.assert_close(compute_loss(logits, Batch({}, targets), Objective()), expected)


def test_ignored_places_cost_nothing() -> None:
    logits = draw(2, 4, 3)
    targets = torch.tensor([[0, IGNORED, 1, IGNORED], [IGNORED, 2, IGNORED, IGNORED]])
    expected = torch.nn.functional.cross_entropy(logits[targets != IGNORED], torch.tensor([0, 1, 2]))
    torch.testing.assert_close(compute_loss(logits, Batch({}, targets), Objective()), expected)
    none = torch.full((2, 4), IGNORED)
    assert float(compute_loss(logits, Batch({}, none), Objective())) == 0


def test_places_are_right_where_the_target_is_the_likeliest() -> None:
    logits = torch.eye(3)[torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2]])]
    targets = torch.tensor([[0, IGNORED, 2, 1], [IGNORED, 1, IGNORED, IGNORED]])
    assert int(count_right(logits, targets)) == 3
    assert int(count_right(logits, torch.full((2, 4), IGNORED))) == 0
    assert int(count_right(logits[:, 0], torch.tensor([0, 0]))) == 1


def test_a_teacher_that_is_matched_costs_nothing() -> None:
    logits = draw(4, 3)
    # A distribution does not move with a constant in its logits.
    assert float(soft_loss(logits, logits + 5, 2.0)) == pytest.approx(0, abs=1e-5)
    assert float(soft_loss(logits, draw(4, 3, seed=1), 2.0)) > 0.05


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_the_soft_gradient_keeps_its_size_over_temperatures(temperature: float) -> None:
    """Hinton et al., 2015: at high temperature the gradient tends to (student - teacher) / classes."""
    student = (draw(64, 5) * 0.01).requires_grad_()
    teacher = draw(64, 5, seed=1) * 0.01
    soft_loss(student, teacher, temperature).backward()
    assert student.grad is not None
    centred = student - teacher - (student - teacher).mean(dim=1, keepdim=True)
    torch.testing.assert_close(student.grad, (centred / 5 / 64).detach(), atol=2e-6, rtol=0.1)


def test_the_share_weighs_teacher_and_labels() -> None:
    logits, teacher, targets = draw(6, 3), draw(6, 3, seed=1), torch.tensor([0, 1, 2, 0, 1, 2])
    loss = compute_loss(logits, Batch({}, targets, teacher), Objective(temperature=2.0, soft_share=0.7))
    expected = 0.7 * soft_loss(logits, teacher, 2.0) + 0.3 * hard_loss(logits, targets)
    torch.testing.assert_close(loss, expected)


def test_a_batch_is_cut_to_its_longest_row_and_finds_its_teachers_places() -> None:
    targets = np.array([[0, 1, IGNORED], [IGNORED, 2, 0], [1, IGNORED, IGNORED]])
    examples = Examples(
        arrays={"input_ids": np.arange(9).reshape(3, 3)},
        targets=targets,
        lengths=np.array([2, 3, 1]),
        teacher_logits=np.arange(5, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32),
    )
    batch = take_batch(examples, np.array([2, 0]), "cpu")
    assert batch.inputs["input_ids"].tolist() == [[6, 7], [0, 1]]
    assert batch.targets.tolist() == [[1, IGNORED], [0, 1]]
    # Row 2 owns the fifth place, row 0 the first two.
    assert batch.teacher_logits[:, 0].tolist() == [4, 0, 1]


def test_examples_that_differ_anywhere_have_another_digest() -> None:
    def build(**changes: np.ndarray) -> str:
        values = {"targets": np.array([0, 1]), "lengths": np.array([2, 2])} | changes
        return Examples(arrays={"input_ids": np.array([[1, 2], [3, 4]])}, **values).digest()

    assert build() == build()
    others = [build(targets=np.array([1, 0])), build(teacher_logits=np.zeros((2, 2), np.float32))]
    assert len({build(), *others}) == 3
