"""Everything of a model that a probe could disturb, compared before and after."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HOOKS = (
    "_forward_hooks _forward_pre_hooks _backward_hooks _backward_pre_hooks _state_dict_hooks "
    "_forward_hooks_with_kwargs _forward_pre_hooks_with_kwargs _forward_hooks_always_called "
    "_load_state_dict_pre_hooks"
).split()


# ---- everything that could change, before and after


def copied(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tensor.dtype, tensor.shape, tensor.detach().clone())


def state_of(model: nn.Module, *inputs: Any) -> dict[str, Any]:
    """Each thing that a probe could disturb, under a name."""
    state: dict[str, Any] = {
        "torch random state": torch.random.get_rng_state().clone(),
        "python random state": random.getstate(),
        "numpy random state": [np.copy(part) for part in np.random.get_state()],
        "state dict": {key: copied(value) for key, value in model.state_dict().items()},
    }
    for name, module in model.named_modules():
        state[f"mode of {name}"] = module.training
        state[f"attributes of {name}"] = set(vars(module))
        for hooks in HOOKS:
            state[f"{hooks} of {name}"] = dict(getattr(module, hooks, {}))
    for name, buffer in model.named_buffers():
        state[f"buffer {name}"] = (id(buffer), copied(buffer))
    for name, p in model.named_parameters():
        state[f"parameter {name}"] = (id(p), copied(p), p.requires_grad, p._version)
        state[f"gradient of {name}"] = (id(p.grad), copied(p.grad))
        state[f"hooks of {name}"] = dict(p._backward_hooks or {})
        after = getattr(p, "_post_accumulate_grad_hooks", None)
        state[f"post-accumulate hooks of {name}"] = dict(after or {})
    for index, x in enumerate(tensors_in(inputs)):
        gradient = (id(x.grad), copied(x.grad)) if x.is_leaf else None
        state[f"input {index}"] = (copied(x), x.requires_grad, gradient)
        state[f"hooks of input {index}"] = dict(x._backward_hooks or {})
    return state


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a.to_dense().nan_to_num(7), b.to_dense().nan_to_num(7))
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b or bool(a == b)


@contextmanager
def unchanged(model: nn.Module, *inputs: Any) -> Iterator[None]:
    """Fail, with the names of what differs, if the block leaves a trace."""
    before = state_of(model, *inputs)
    yield
    after = state_of(model, *inputs)
    assert before.keys() == after.keys()
    assert [name for name in before if not same(before[name], after[name])] == []


# ---- a model with everything that could change in it


class Everything(nn.Module):
    """BatchNorm, dropout, a frozen layer, gradients, hooks, buffers, draws from 3 generators."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.head = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("mean", torch.full((8,), float("nan")), persistent=False)
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = x.mean() + 0 * self.mean
        x.mul_(1 + random.random() + float(np.random.rand()) + float(torch.rand(())))
        x = self.relu(self.frozen(self.drop(self.norm(self.stem(x)))))
        for layer in self.body:
            x = layer(x)
        self.eval()  # a model that changes its own mode
        if self.fails:
            raise RuntimeError("the forward raises")
        return self.head(x)


def everything() -> tuple[Everything, Tensor]:
    model = Everything()
    model.norm.eval()
    model.drop.train()
    model.stem.weight.grad = torch.ones(8, 4)
    model.head.bias.grad = torch.full((3,), 2.0)
    model.stem.register_forward_hook(lambda module, inputs, output: None)
    model.body[0].register_full_backward_hook(lambda module, given, taken: None)
    model.head.weight.register_hook(lambda gradient: gradient)
    model.head.weight.register_post_accumulate_grad_hook(lambda parameter: None)
    return model, torch.randn(6, 4, requires_grad=True)
