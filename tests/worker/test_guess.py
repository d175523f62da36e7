"""Inputs that nobody gave: guessed from what a class tells, and said; or there are none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradprobe.spec.network import TensorSpec
from gradprobe.worker.guess import guess, hint_for


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.positions = nn.Parameter(torch.zeros(20, 8))
        self.norm = nn.BatchNorm1d(8)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.positions[: ids.shape[1]]
        return self.norm(x.mean(1))


class Image(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 2, 5), nn.Flatten(), nn.Linear(2 * 24 * 24, 4))


class Lit(nn.Linear):
    example_input_array = torch.ones(3, 5)


class Named(nn.Linear):
    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        return {"input": torch.ones(2, self.in_features)}


class Fours(nn.Linear):
    """As a discriminator that compares the samples of a group."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(4, -1, *x.shape[1:]))


class Two(nn.Linear):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x + y)


@pytest.mark.parametrize(
    ("model", "source"),
    [
        (Text(), "--input shape=8,16/dtype=int64/high=50, by Embedding embed"),
        (Image(), "--input shape=8,1,28,28, by Conv2d 0"),
        (nn.Sequential(nn.Linear(7, 2)), "--input shape=32,7, by Linear 0"),
        (nn.LSTM(6, 4), "--input shape=8,16,6, by LSTM"),
        (nn.Linear(7, 2).double(), "--input shape=32,7/dtype=float64, by Linear"),
        (nn.Linear(7, 2).bfloat16(), "--input shape=32,7/dtype=bfloat16, by Linear"),
        (nn.TransformerEncoderLayer(8, 2), "--input shape=8,16,8, by MultiheadAttention self_attn"),
        (Fours(7, 2), "--input shape=32,7, by Fours"),
        (Lit(5, 2), "Lit.example_input_array"),
        (Named(5, 2), "Named.dummy_inputs"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_the_first_that_runs_is_taken(model: nn.Module, source: str) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    guessed = guess(model, 0)
    assert guessed is not None
    assert guessed.source == source
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_it_is_tried_with_two_samples() -> None:
    model, tried = nn.Linear(7, 2), []
    model.register_forward_pre_hook(lambda _, args: tried.append(args[0].shape[0]))
    assert guess(model, 0) is not None
    assert tried == [2]


@pytest.mark.parametrize("model", [Two(3, 2), nn.ReLU(), nn.Bilinear(2, 2, 2)])
def test_there_is_none(model: nn.Module) -> None:
    assert guess(model, 0) is None


@pytest.mark.parametrize(
    ("model", "spec", "hint"),
    [
        (
            Text(),
            TensorSpec((4, 6)),
            "integers: --input shape=4,6/dtype=int64/high=50",
        ),
        (
            Text(),
            TensorSpec((4, 6), "int64", 99),
            "50 tokens: --input shape=4,6/dtype=int64",
        ),
        (Image(), TensorSpec((4, 3, 28, 28)), "the first layer takes --input shape=8,1,64,64"),
    ],
)
def test_a_hint_names_option_and_value(model: nn.Module, spec: TensorSpec, hint: str) -> None:
    assert hint in hint_for(model, spec)


def test_what_the_first_layer_takes_needs_no_hint() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 2))
    assert hint_for(model, TensorSpec((3, 4))) == ""
    assert hint_for(model, TensorSpec((3, 5))) == "the first layer takes --input shape=32,4"
