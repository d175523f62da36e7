"""Recurrent layers in a loop: named where each step begins from the same state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradprobe

SEQUENCE = torch.randn(16, 5, 4, generator=torch.Generator().manual_seed(0))


class Loop(nn.Module):
    def __init__(self, rnn: nn.Module, way: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head, self.way = rnn, nn.Linear(4, 3), way

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.way(self.rnn, x))


def named(model: nn.Module) -> bool:
    report = gradprobe.probe(model, SEQUENCE, loss=lambda o: o.square().mean(), deep=True)
    return "GP208" in {finding.rule for finding in report.findings}


def cell(x: Tensor, hands_on: bool, each: bool, rnn: nn.Module) -> Tensor:
    state, outputs = torch.zeros(len(x), 4), []
    for now in x.unbind(1):
        after = rnn(now, state)
        outputs.append(after)
        state = after if hands_on else state
    return torch.stack(outputs).mean(0) if each else after


def layer(x: Tensor, hands_on: bool, steps: int, rnn: nn.Module) -> Tensor:
    state = None
    for now in x.split(steps, 1):
        y, after = rnn(now, state)
        state = after if hands_on else None
    return y[:, -1]


@pytest.mark.parametrize("hands_on", [True, False])
@pytest.mark.parametrize("each", [True, False])
def test_a_cell_that_begins_each_step_anew_is_named(hands_on: bool, each: bool) -> None:
    way = lambda rnn, x: cell(x, hands_on, each, rnn)  # noqa: E731
    assert named(Loop(nn.GRUCell(4, 4), way)) is not hands_on


@pytest.mark.parametrize(("hands_on", "steps"), [(True, 1), (False, 1), (False, 2)])
def test_a_layer_that_is_called_for_each_step_is_named(hands_on: bool, steps: int) -> None:
    way = lambda rnn, x: layer(x, hands_on, steps, rnn)  # noqa: E731
    assert named(Loop(nn.LSTM(4, 4, batch_first=True), way)) is (not hands_on and steps == 1)


def test_a_state_that_is_zero_all_the_way_is_handed_on() -> None:
    rnn = nn.GRUCell(4, 4)
    for parameter in rnn.parameters():
        nn.init.zeros_(parameter)
    assert not named(Loop(rnn, lambda rnn, x: cell(x, True, True, rnn)))


def test_one_sequence_that_is_read_several_times_is_none() -> None:
    way = lambda rnn, x: sum(rnn(x[:, 0]) for _ in range(4))  # noqa: E731
    assert not named(Loop(nn.GRUCell(4, 4), way))


def test_a_state_that_is_data_is_none_that_begins_anew() -> None:
    way = lambda rnn, x: sum(rnn(now, x[:, 0]) for now in x.unbind(1))  # noqa: E731
    assert not named(Loop(nn.GRUCell(4, 4), way))


def test_a_state_that_the_model_is_given_is_none_that_begins_anew() -> None:
    class Agents(Loop):
        def forward(self, x: Tensor, states: Tensor) -> Tensor:
            pairs = zip(x.unbind(1), states.unbind(1), strict=True)
            return self.head(torch.stack([self.rnn(now, state) for now, state in pairs], 1))

    model = Agents(nn.GRUCell(4, 4), lambda rnn, x: x)
    states = torch.zeros(16, 5, 4)
    loss = lambda o: o.square().mean()  # noqa: E731
    report = gradprobe.probe(model, (SEQUENCE, states), loss=loss, deep=True)
    assert "GP208" not in {finding.rule for finding in report.findings}
