"""How far each weight goes in the small step of a second look."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gradprobe.measure.second_look import second_look
from gradprobe.measure.small_step import CHANGE, SHORTEST, STEP, moved_against
from gradprobe.model.make import module_subject


def gradients_of(model: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The matrices of the model, and the gradients of the sum of its squares."""
    matrices = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    gradients = torch.autograd.grad(model(x).square().sum(), list(matrices.values()))
    weights = {name: p.detach() for name, p in matrices.items()}
    return weights, dict(zip(weights, gradients, strict=True))


def lengths(weights: dict[str, Tensor], moved: dict[str, Tensor]) -> dict[str, float]:
    """How far each matrix has gone, ÷ its RMS singular value."""
    return {
        name: float((moved[name] - w).norm() / w.norm()) * math.sqrt(min(w.shape))
        for name, w in weights.items()
    }


@pytest.fixture
def normalised() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Linear(12, 9, bias=False), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 5)
    return nn.Sequential(*layers).double()


def test_without_a_spread_every_weight_goes_its_share(normalised: nn.Sequential) -> None:
    weights, gradients = gradients_of(normalised, torch.randn(20, 12).double())
    gone = lengths(weights, moved_against(weights, gradients, STEP).weights)
    assert gone == pytest.approx({"0.weight": STEP, "3.weight": STEP})


def test_only_what_is_scale_invariant_is_held_back(normalised: nn.Sequential) -> None:
    """Its step lowers the loss by ``CHANGE`` of the spread, to first order."""
    weights, gradients = gradients_of(normalised, torch.randn(20, 12).double())
    weight, gradient = weights["0.weight"], gradients["0.weight"]
    assert abs(float((weight * gradient).sum())) < 1e-4 * float(weight.norm() * gradient.norm())
    slope = float(weight.norm() * gradient.norm()) / 3  # of 9 singular values
    spread = 0.2 * STEP * slope / CHANGE
    moved = moved_against(weights, gradients, STEP, spread).weights
    gone = lengths(weights, moved)
    assert gone == pytest.approx({"0.weight": 0.2 * STEP, "3.weight": STEP})
    fallen = float(((weight - moved["0.weight"]) * gradient).sum())
    assert fallen == pytest.approx(CHANGE * spread)


def test_the_step_is_not_lost_in_rounding(normalised: nn.Sequential) -> None:
    weights, gradients = gradients_of(normalised, torch.randn(20, 12).double())
    gone = lengths(weights, moved_against(weights, gradients, STEP, 0.0).weights)
    assert gone["0.weight"] == pytest.approx(SHORTEST * STEP)


def test_a_wide_weight_without_a_norm_is_not_taken_for_an_invariant_one() -> None:
    """Random directions are nearly at a right angle where there are many."""
    generator = torch.Generator().manual_seed(0)
    weight = {"w": torch.randn(300, 300, generator=generator)}
    gradient = {"w": torch.randn(300, 300, generator=generator)}
    assert lengths(weight, moved_against(weight, gradient, STEP, 0.0).weights) == pytest.approx(
        {"w": STEP}
    )


def deep(depth: int) -> nn.Module:
    """Convolutions with BatchNorm and without a skip, in images of few values a channel."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, stride=2, padding=1)]
    for _ in range(depth):
        layers += [nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


@pytest.mark.parametrize(("depth", "least", "most"), [(24, 0.45, 0.7), (50, 0.0, 0.35)])
def test_a_sensitive_gradient_is_told_from_a_shattered_one(
    depth: int, least: float, most: float
) -> None:
    """The same relative step for both leaves either at a right angle, a coherence of 0.29."""
    coherence = second_look(module_subject(deep(depth), torch.randn(8, 3, 16, 16))).coherence
    assert coherence is not None
    assert least < coherence < most


class Mixed(nn.Module):
    """The stream and its own start, mixed in front of a norm that takes their scale out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(12, 9), nn.Linear(9, 5)
        self.shares = nn.Parameter(torch.tensor([[1.0, 0.5]]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(nn.functional.normalize(x * self.shares[0, 0] + x * self.shares[0, 1]))


def test_a_gradient_that_is_rounding_has_no_say() -> None:
    torch.manual_seed(0)
    model, x = Mixed(), torch.randn(32, 12)
    weights, gradients = gradients_of(model, x)
    assert 0 < gradients["shares"].norm() < 1e-6 * gradients["head.weight"].norm()
    assert set(moved_against(weights, gradients, STEP).weights) == {"first.weight", "head.weight"}
    coherence = second_look(module_subject(model, x)).coherence
    assert coherence is not None
    assert coherence > 0.95
