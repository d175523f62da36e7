"""Whatever a forward does to its own model is undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradprobe
from gradprobe.measure.undisturbed import undisturbed


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


def _linked(model: Any) -> None:
    model.codes.add_(model.inner.weight.sum())  # whose gradient goes on through it


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
WAYS += [_linked, _modes, _gradients, _hooks, _removed]


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


def _is_lent(tensor: Tensor) -> bool:
    return bool(torch._C._is_cow_tensor(tensor))


def _double(module: nn.Module, args: Any) -> None:
    module.weight.data.mul_(2)


def test_weights_that_nobody_writes_to_are_not_copied() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    parameters = list(model.parameters())
    before = [p.data_ptr() for p in parameters]
    with undisturbed(model):
        model(torch.randn(3, 6)).sum().backward()
        assert all(map(_is_lent, parameters))
        with undisturbed(model):
            model(torch.randn(3, 6))
        assert all(map(_is_lent, parameters))
    assert not any(map(_is_lent, parameters))
    assert [p.data_ptr() for p in parameters] == before
    assert all(p.grad is None for p in parameters)


@pytest.mark.parametrize("inner", [False, True])
def test_who_shares_memory_with_a_weight_goes_on_sharing_it(inner: bool) -> None:
    model = nn.Linear(4, 4)
    model.register_forward_pre_hook(_double)
    array = model.weight.requires_grad_(False).numpy()  # by the tensor itself
    flat = torch.randn(20)
    model.bias = nn.Parameter(flat[16:])
    model.other = nn.Linear(4, 4, bias=False)
    model.other.weight = nn.Parameter(flat[:16].view(4, 4))
    model.other.register_forward_pre_hook(_double)
    values = [model.weight.clone(), flat.clone()]
    with undisturbed(model):
        if inner:
            with undisturbed(model):
                model.other(model(torch.randn(2, 4)))
        model.other(model(torch.randn(2, 4)))
        assert not torch.equal(flat, values[1])
    assert torch.equal(model.weight, values[0])
    assert torch.equal(flat, values[1])
    array[0, 0] = flat[16] = 7.0
    assert model.weight[0, 0] == model.bias[0] == 7.0


def test_the_memory_of_recurrent_weights_is_theirs_again() -> None:
    """Their kernels take memory that may be written to, and write nothing."""
    model = nn.LSTM(3, 4, batch_first=True)
    before = [(p.data_ptr(), p.tolist()) for p in model.parameters()]
    for _ in range(2):
        with undisturbed(model):
            model(torch.randn(2, 5, 3))[0].sum().backward()
    assert [(p.data_ptr(), p.tolist()) for p in model.parameters()] == before


def test_weights_that_torch_does_not_lend_are_copied() -> None:
    array = np.arange(6, dtype=np.float32)
    model = nn.Linear(2, 3)
    model.weight = nn.Parameter(torch.from_numpy(array).view(3, 2))
    model.empty = nn.Parameter(torch.zeros(0, 3))
    model.share_memory()
    model.register_forward_pre_hook(_double)
    with undisturbed(model):
        model(torch.randn(2, 2))
    assert model.weight.flatten().tolist() == list(range(6))
