"""Whatever a forward does to its own model is undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradprobe


def _fill_data(model: Any) -> None:
    model.weight.data.mul_(0.5)  # which no version counts


def _new_data(model: Any) -> None:
    model.weight.data = model.weight.data * 0.5


def _count(model: Any) -> None:
    model.calls += 1
    model.seen.append(model.calls)
    model.by_name["x"] = model.calls


def _new_parameter(model: Any) -> None:
    model.weight = nn.Parameter(model.weight.detach() * 0.5)


def _codebook(model: Any) -> None:
    model.codes.add_(1)
    model.register_buffer("more", torch.ones(1))


def _plain_tensor(model: Any) -> None:
    model.moving.add_(1)


def _submodule(model: Any) -> None:
    model.inner = nn.Linear(6, 6)
    model.other = nn.Identity()


def _modes(model: Any) -> None:
    model.inner.eval()
    model.inner.weight.requires_grad_(False)


def _gradients(model: Any) -> None:
    model.held.grad.add_(1)
    model.inner.weight.grad = torch.ones(6, 6)


def _hooks(model: Any) -> None:
    model.inner.register_forward_pre_hook(lambda module, inputs: None)
    model.inner.register_full_backward_hook(lambda module, before, after: None)


def _removed(model: Any) -> None:
    vars(model).pop("calls", None)


WAYS = [_fill_data, _new_data, _count, _new_parameter, _codebook, _plain_tensor, _submodule]
WAYS += [_modes, _gradients, _hooks, _removed]


class Restless(nn.Module):
    """Writes to itself whenever it is called."""

    def __init__(self, way: Callable[[Any], None]) -> None:
        super().__init__()
        self.way = way
        self.inner = nn.Linear(6, 6)
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.held = nn.Parameter(torch.randn(6))
        self.held.grad = torch.zeros(6)
        self.register_buffer("codes", torch.randn(6))
        self.moving = torch.zeros(6)
        self.calls, self.seen, self.by_name = 0, [1], {"x": 0}

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x @ self.weight + self.held + self.codes)
        self.way(self)
        return torch.tanh(out)


def _everything(model: nn.Module) -> dict[str, Any]:
    """All that can be seen of a module and those inside it."""
    seen: dict[str, Any] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            plain = repr(value) if isinstance(value, (dict, list, set, int, str)) else id(value)
            seen[f"{name}.{key}"] = plain
            for word, inside in value.items() if isinstance(value, dict) else [("", value)]:
                if isinstance(inside, Tensor):
                    gradient = inside.grad if inside.is_leaf else None
                    seen[f"{name}.{key}.{word}"] = (
                        *(id(inside), inside.data_ptr(), inside.requires_grad, inside.tolist()),
                        gradient if gradient is None else gradient.tolist(),
                    )
    return seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", [{}, {"deep": True}, {"blocks": True}])
def test_what_a_forward_writes_is_undone(
    way: Callable[[Any], None], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Restless(way), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    before = _everything(model)
    gradprobe.probe(model, torch.randn(4, 6), **options)
    assert _everything(model) == before


def test_it_is_undone_too_where_the_forward_raises() -> None:
    def way(model: Any) -> None:
        _new_data(model)
        _submodule(model)
        raise ValueError("no more")

    model = nn.Sequential(Restless(way), nn.Linear(6, 3))
    before = _everything(model)
    with pytest.raises(gradprobe.ModelError, match="no more"):
        gradprobe.probe(model, torch.randn(4, 6))
    assert _everything(model) == before
