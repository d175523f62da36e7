"""Derivatives in a loss: named where they are added without a graph, and not where it is meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradprobe

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))


class Derived(nn.Module):
    def __init__(self, way: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.other = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x.detach().requires_grad_())


def slope(y: Tensor, x: Tensor, graph: bool = False) -> Tensor:
    return torch.autograd.grad(y.sum(), x, retain_graph=True, create_graph=graph)[0]


def named(way: Callable[[nn.Module, Tensor], Tensor]) -> bool:
    report = gradprobe.probe(Derived(way), X, loss=lambda o: o.square().mean(), deep=True)
    return "GP209" in {finding.rule for finding in report.findings}


def penalty(self: nn.Module, x: Tensor, graph: bool) -> Tensor:
    y = self.net(x)
    return y.mean() + 10 * (slope(y, x, graph).norm(dim=1) - 1).square().mean()


def residual(self: nn.Module, x: Tensor, graph: bool) -> Tensor:
    y = self.net(x)
    return slope(y, x, graph)[:, :1] + y


def second(self: nn.Module, x: Tensor, graph: bool) -> Tensor:
    y = self.net(x)
    first = slope(y, x, True)
    return first + slope(first, x, graph)


def alone(self: nn.Module, x: Tensor, graph: bool) -> Tensor:
    return slope(self.net(x), x, graph) - 1


def adversarial(self: nn.Module, x: Tensor) -> Tensor:
    y = self.net(x)
    return y + self.net(x + 0.1 * slope(y, x).sign())


def weight_of_a_term(self: nn.Module, x: Tensor) -> Tensor:
    y = self.net(x)
    return y.square() + slope(y, x).norm() * y


def step_of_descent(self: nn.Module, x: Tensor) -> Tensor:
    weight = self.net[0].weight
    moved = weight - 0.1 * slope(self.net(x), weight)
    return self.net[2]((x @ moved.T).tanh()) + self.net(x)


def target_of_another(self: nn.Module, x: Tensor) -> Tensor:
    y = self.net(x)
    return F.mse_loss(self.other(x), slope(y, x)) + y.square().mean()


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("way", [penalty, residual, second, alone])
def test_a_derivative_that_is_added_up_without_a_graph_is_named(way: Callable, graph: bool) -> None:
    assert named(lambda self, x: way(self, x, graph)) is not graph


@pytest.mark.parametrize("way", [adversarial, weight_of_a_term, step_of_descent, target_of_another])
def test_a_derivative_that_is_no_term_is_not_named(way: Callable) -> None:
    assert not named(way)
