"""Draws without a gradient: named where weights read them, and not where a gradient goes past."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Gamma, Independent, LogNormal, MultivariateNormal, Normal, Uniform

import gradprobe

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))


class Drawing(nn.Module):
    """An encoder, what ``way`` makes of it, and a decoder; the loss is of both outputs."""

    def __init__(self, way: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(8, 4), nn.Linear(4, 8)
        self.cell, self.deviation = nn.GRUCell(4, 8), nn.Parameter(torch.ones(4))
        self.way = way

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.way(self, x)


def loss(output: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(output[0], X) + output[1].mean()


def named(way: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]) -> bool:
    report = gradprobe.probe(Drawing(way), X, loss=loss, deep=True)
    return "GP207" in {finding.rule for finding in report.findings}


def decoded(draw: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """As a VAE does: the decoder reads the draw, and the mean has a penalty of its own."""

    def way(self: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.encoder(x)
        return self.decoder(draw(mean, self.deviation)), mean.square()

    return way


def with_density(self: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """As a policy does, whose critic reads the action."""
    policy = Normal(self.encoder(x), self.deviation)
    action = policy.sample()
    return self.decoder(action), policy.log_prob(action)


def written_density(self: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    mean = self.encoder(x)
    action = torch.normal(mean, 0.1)
    return self.decoder(action), (action.detach() - mean).square()


def fed_back(self: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """As a model of sequences that runs on its own draws does."""
    state, total, drawn = x, x.new_zeros(len(x), 4), x[:, :4]
    for _ in range(3):
        state = self.cell(drawn, state)
        density = Normal(self.encoder(state), self.deviation)
        total, drawn = total - density.log_prob(x[:, :4]), density.sample()
    return self.decoder(drawn.detach() * 0 + total), total


def target_only(self: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the weights make of the draw is a target, and gets no gradient itself."""
    mean = self.encoder(x)
    target = self.decoder(Normal(mean, 1.0).sample()).detach()
    return self.decoder(mean), (self.decoder(mean) - target).square()


FAULTY = {
    "Normal": lambda m, s: Normal(m, s).sample(),
    "Independent": lambda m, s: Independent(Normal(m, s), 1).sample(),
    "LogNormal": lambda m, s: LogNormal(m, s).sample(),
    "Gamma": lambda m, s: Gamma(F.softplus(m) + 1, s).sample(),
    "Uniform": lambda m, s: Uniform(m, m + 1).sample(),
    "MultivariateNormal": lambda m, s: MultivariateNormal(m, torch.diag(s)).sample(),
    "normal": torch.normal,
    "scaled": lambda m, s: Normal(m, s).sample() * 2 + 1,
    "beside": lambda m, s: torch.cat([Normal(m, s).sample()[:, :2], torch.ones(32, 2)], 1),
}
SOUND = {
    "rsample": decoded(lambda m, s: Normal(m, s).rsample()),
    "written out": decoded(lambda m, s: m + s * torch.randn_like(m)),
    "straight through": decoded(lambda m, s: Normal(m, s).sample() + m - m.detach()),
    "detached": decoded(lambda m, s: Normal(m.detach(), 1.0).sample()),
    "noise": decoded(lambda m, s: m + Normal(torch.zeros_like(m), 1.0).sample()),
    "with its density": with_density,
    "with a density written out": written_density,
    "fed back": fed_back,
    "for a target": target_only,
}


@pytest.mark.parametrize("draw", FAULTY.values(), ids=FAULTY)
def test_a_draw_that_weights_read_is_named(draw: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert named(decoded(draw))


@pytest.mark.parametrize("way", SOUND.values(), ids=SOUND)
def test_no_draw_is_named_past_which_a_gradient_goes(way: Callable) -> None:
    assert not named(way)


def test_the_distributions_are_as_they_were() -> None:
    before = Normal.sample
    assert named(decoded(FAULTY["Normal"]))
    assert Normal.sample is before
