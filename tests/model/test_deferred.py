"""A model that is built without its large tensors gets the numbers of one that is built whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import nn

from gradprobe.model.deferred import Deferred

M = TypeVar("M", bound=nn.Module)
WIDTH = 70  # so that a matrix is large, and a bias is not


class Net(nn.Module):
    """Draws, computes and reads its weights in most of the ways that models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(90, WIDTH, padding_idx=3)
        self.blocks = nn.ModuleList(nn.MultiheadAttention(WIDTH, 2) for _ in range(2))
        self.copied = copy.deepcopy(self.blocks[0])
        self.lstm, self.half = nn.LSTM(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH).half()
        self.conv = nn.Conv2d(32, 32, 3).to(memory_format=torch.channels_last)
        self.rates = [float(rate) for rate in torch.linspace(0, 1, 3)]
        self.register_buffer("mask", torch.tril(torch.ones(WIDTH, WIDTH)))
        self.outer = nn.Parameter(torch.outer(torch.arange(80.0), torch.arange(80.0)).cos())
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, 90, bias=False)
        self.apply(self.init)
        nn.init.orthogonal_(self.blocks[1].out_proj.weight)
        nn.init.sparse_(self.outer, 0.3)
        self.spread = float(self.embed.weight.detach().std())
        self.head.weight = self.embed.weight

    def init(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)) and module is not self.half:
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.03, b=0.03)


def both_ways(make: Callable[[], M]) -> tuple[M, M, Deferred]:
    """A model built whole, and without its large tensors: what is drawn afterwards is the same."""
    torch.manual_seed(0)
    whole, after = make(), torch.rand(3)
    torch.manual_seed(0)
    with Deferred() as deferred:
        model = make()
    assert torch.rand(3).equal(after)
    return whole, model, deferred


def test_one_layer_at_a_time_is_given_its_numbers() -> None:
    def layers() -> nn.Sequential:
        return nn.Sequential(nn.Embedding(90, WIDTH), nn.Linear(WIDTH, WIDTH))

    whole, model, deferred = both_ways(layers)
    for layer, expected in zip(model, whole, strict=True):
        assert layer.weight.is_meta
        deferred.fill(layer)
        assert layer.weight.equal(expected.weight)


@pytest.mark.slow
def test_every_number_is_that_of_the_model_built_whole() -> None:
    whole, model, deferred = both_ways(Net)
    assert (model.spread, model.rates) == (whole.spread, whole.rates)
    assert model.embed.weight.is_meta
    assert model.copied.in_proj_weight.is_meta
    assert not model.copied.in_proj_bias.is_meta
    deferred.fill(model.blocks[0])
    assert not model.blocks[0].in_proj_weight.is_meta
    assert model.blocks[1].in_proj_weight.is_meta  # one block at a time
    deferred.fill(model)
    assert model.head.weight is model.embed.weight
    own, expected = model.state_dict(), whole.state_dict()
    assert own.keys() == expected.keys()
    for name, tensor in expected.items():
        assert own[name].equal(tensor), name
        assert (own[name].stride(), own[name].dtype) == (tensor.stride(), tensor.dtype), name
    x = torch.randn(2, 3, WIDTH)
    assert model.lstm(x)[0].equal(whole.lstm(x)[0])


def test_what_cannot_be_read_without_numbers_says_so() -> None:
    with pytest.raises(RuntimeError, match="unallocated"), Deferred():
        torch.empty(WIDTH, WIDTH).tolist()
