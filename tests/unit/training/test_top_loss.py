from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from equipoise.training.losses import soft_loss, top_loss

PLACES, CLASSES = 6, 40


def keep(teacher: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-likelihoods of the likeliest classes and of the rest together, as the cache holds them."""
    shares = teacher.softmax(dim=-1)
    kept, classes = shares.topk(count, dim=-1)
    rest = 1 - kept.sum(dim=-1, keepdim=True)
    return torch.cat([kept, rest.clamp_min(1e-30)], dim=-1).log(), classes


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), count=st.integers(1, CLASSES - 1))
def test_it_is_at_most_the_divergence_over_all_classes_and_reaches_it(seed: int, count: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    teacher, student = (torch.randn(PLACES, CLASSES, generator=draw) * 3 for _ in range(2))
    whole = soft_loss(student, teacher, temperature=1.0)
    part = top_loss(student, *keep(teacher, count))
    assert -1e-5 <= part <= whole + 1e-4
    torch.testing.assert_close(top_loss(student, *keep(teacher, CLASSES - 1)), whole, atol=1e-4, rtol=1e-4)


def test_a_student_that_agrees_loses_nothing_and_is_left_alone() -> None:
    teacher = torch.randn(PLACES, CLASSES, generator=torch.Generator().manual_seed(1))
    student = teacher.clone().requires_grad_()
    loss = top_loss(student, *keep(teacher, 5))
    loss.backward()
    assert abs(float(loss.detach())) < 1e-6
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-6


def test_its_descent_leads_to_the_teachers_likeliest_classes() -> None:
    teacher = torch.randn(PLACES, CLASSES, generator=torch.Generator().manual_seed(2)) * 4
    kept = keep(teacher, 5)
    student = torch.zeros(PLACES, CLASSES, requires_grad=True)
    for _ in range(400):
        (gradient,) = torch.autograd.grad(top_loss(student, *kept), student)
        student = (student - 10 * gradient).detach().requires_grad_()
    top = functional.log_softmax(student, dim=-1).gather(-1, kept[1])
    torch.testing.assert_close(top.exp().detach(), kept[0][:, :-1].exp(), atol=0.02, rtol=0.02)


def test_no_places_are_no_loss() -> None:
    empty = torch.zeros(0, CLASSES)
    assert float(top_loss(empty, torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.int32))) == 0
