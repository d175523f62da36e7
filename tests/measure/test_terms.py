"""The gradients of a loss's terms, in closed form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradprobe.measure.terms import times_compared

WEIGHT, TARGET = torch.tensor([3.0, -4.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 2.0, 0.0])
# Of mse_loss(w, t) the gradient is 2 (w - t) / n, of λ Σ w² it is 2 λ w.
SHARES, LABEL = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1])
TIMES = 0.5 * 4 * float(WEIGHT.norm() / (WEIGHT - TARGET).norm())


def ctc(y: Tensor) -> Tensor:
    return F.ctc_loss(y.log_softmax(0)[None, None], LABEL[None], LABEL, LABEL)


def compared(y: Tensor) -> Tensor:
    return F.mse_loss(y, TARGET)


def added(y: Tensor) -> Tensor:
    return 0.5 * (y * y).sum()


@pytest.mark.parametrize(
    "loss",
    [
        lambda y: compared(y) + added(y),
        lambda y: (added(y) - compared(y)) / 7 + 3.0,
        lambda y: torch.stack([compared(y), added(y)]).sum(),
        lambda y: sum([compared(y), added(y)]),
        lambda y: compared(y) + 0.25 * (y * y).sum() + 0.25 * y.square().sum(),
        lambda y: (F.mse_loss(y, TARGET, reduction="none") / 4 + 0.5 * y.square()).sum(),
        lambda y: ((y - TARGET) ** 2).mean() + added(y),
        lambda y: F.mse_loss(y, TARGET) / 2 + (TARGET - y).square().mean() / 2 + added(y),
    ],
)
def test_the_two_gradients_stand_as_they_do_in_closed_form(
    loss: Callable[[Tensor], Tensor],
) -> None:
    weight = WEIGHT.clone().requires_grad_()
    total = loss(weight * 1.0)
    assert times_compared(total, [weight]) == pytest.approx(TIMES)
    [whole] = torch.autograd.grad(total, [weight])  # the graph is there, and nothing is held back
    [again] = torch.autograd.grad(loss(weight * 1.0), [weight])
    assert torch.equal(whole, again)


@pytest.mark.parametrize(
    "loss",
    [
        compared,
        added,
        lambda y: compared(y) + F.mse_loss(y, TARGET + 1),
        lambda y: compared(y) * added(y),
        lambda y: compared(y) + 1.0,
        lambda y: F.mse_loss(y.detach(), TARGET) + added(y),
        lambda y: y.sum(),
        lambda y: compared(y) - (SHARES * y.log_softmax(0)).sum(),
        lambda y: compared(y) + F.kl_div(y.log_softmax(0), SHARES, reduction="sum"),
        lambda y: compared(y) - (y.log_softmax(0) * SHARES).mean(),
        lambda y: compared(y) + ctc(y),
        lambda y: F.mse_loss(y, y.flip(0)) + added(y),
        lambda y: F.mse_loss(y, TARGET) * (-y[0]).exp() + y[0],
        lambda y: F.gaussian_nll_loss(y, TARGET, y.exp()),
    ],
)
def test_nothing_is_said_without_terms_of_both_kinds(loss: Callable[[Tensor], Tensor]) -> None:
    weight = WEIGHT.clone().requires_grad_()
    assert times_compared(loss(weight * 1.0), [weight]) is None


def test_no_gradient_to_stand_beside() -> None:
    weight = WEIGHT.clone().requires_grad_()
    assert times_compared(F.mse_loss(weight * 1.0, WEIGHT) + added(weight * 1.0), [weight]) is None
