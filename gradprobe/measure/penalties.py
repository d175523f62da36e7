"""Derivatives in a loss that have no graph of their own, and are constants in it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradprobe.model.tensors import tensors_in, walk

_MOST = 10_000  # nodes behind a tensor that are looked at
_SIGNATURE = inspect.signature(torch.autograd.grad)
# Functions by which two things are compared, added, or put beside each other.
_ADDING = frozenset(
    "add radd iadd sub rsub isub cat stack mse_loss huber_loss l1_loss smooth_l1_loss".split()
)


class Penalties(TorchFunctionMode):
    """Follows derivatives from one function of torch to the next, until weights read them.

    What weights read of one, as of an adversarial example, is no part of the loss, nor is what
    something with a gradient is multiplied by, as by a weight of a term. The derivative of another
    network is a target.
    """

    def __init__(self) -> None:
        super().__init__()
        # By id, what follows from a derivative, kept so that no other tensor gets its id, with the
        # ids of the weights of what was derived.
        self.following: dict[int, tuple[Tensor, set[int]]] = {}
        self.joined: set[int] = set()  # those to which more of the same weights was added

    def found(self, loss: Tensor) -> bool:
        """Whether the loss adds up a derivative of the model that has no gradient."""
        return id(loss) in self.joined or (id(loss) in self.following and not loss.requires_grad)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.autograd.grad:
            self._begin(result, **_SIGNATURE.bind(*args, **(kwargs or {})).arguments)
        elif self.following and torch.is_grad_enabled():
            tensors = list(tensors_in([args, kwargs]))
            if any(id(x) in self.following for x in tensors):
                self._follow(getattr(func, "__name__", "").strip("_"), tensors, result)
        return result

    def _begin(self, results: Any, outputs: Any, inputs: Any, **_: Any) -> None:
        weights = _weights_behind(tensors_in(outputs))
        for of, result in zip(tensors_in(inputs), results, strict=False):
            if result is not None and not result.requires_grad and not _weights_behind([of]):
                self.following[id(result)] = result, weights

    def _follow(self, name: str, tensors: list[Tensor], result: Any) -> None:
        derived = [x for x in tensors if id(x) in self.following]
        weights = set[int]().union(*(self.following[id(x)][1] for x in derived))
        others = [x for x in tensors if id(x) not in self.following and x.requires_grad]
        behind = _weights_behind(others)
        if behind and (name not in _ADDING or behind.isdisjoint(weights)):
            return
        if any(isinstance(x, nn.Parameter) for x in others):  # a step of gradient descent
            return
        joined = bool(behind) or any(id(x) in self.joined for x in derived)
        for x in tensors_in(result):
            self.following[id(x)] = x, weights
            if joined:
                self.joined.add(id(x))


def _weights_behind(tensors: Iterable[Tensor]) -> set[int]:
    """The ids of the parameters that ``tensors`` follow from, or are."""
    tensors = list(tensors)
    nodes = islice(walk([x.grad_fn for x in tensors]), _MOST)
    leaves = [*tensors, *(getattr(node, "variable", None) for node in nodes)]
    return {id(leaf) for leaf in leaves if isinstance(leaf, nn.Parameter)}
