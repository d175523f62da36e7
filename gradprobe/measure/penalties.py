"""Derivatives in a loss that have no graph of their own, and are constants in it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from gradprobe.measure.follower import MOST, Follower
from gradprobe.model.tensors import tensors_in, walk

_SIGNATURE = inspect.signature(torch.autograd.grad)
# Functions by which two things are compared, added, or put beside each other.
_ADDING = frozenset(
    "add radd iadd sub rsub isub cat stack mse_loss huber_loss l1_loss smooth_l1_loss".split()
)


class Penalties(Follower[set[int]]):
    """Follows derivatives until weights read them, with the ids of the weights of what was derived.

    What weights read of one, as of an adversarial example, is no part of the loss, nor is what
    something with a gradient is multiplied by, as by a weight of a term. The derivative of another
    network is a target.
    """

    def __init__(self) -> None:
        super().__init__(torch.autograd.grad)
        self.joined: set[int] = set()  # those to which more of the same weights was added

    def found(self, loss: Tensor) -> bool:
        """Whether the loss adds up a derivative of the model that has no gradient."""
        return id(loss) in self.joined or (id(loss) in self.following and not loss.requires_grad)

    def begin(self, result: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        given = _SIGNATURE.bind(*args, **kwargs).arguments
        weights = _weights_behind(tensors_in(given["outputs"]))
        for of, derivative in zip(tensors_in(given["inputs"]), result, strict=False):
            constant = derivative is not None and not derivative.requires_grad
            if constant and not _weights_behind([of]):
                self.following[id(derivative)] = derivative, weights
        return result

    def follow(self, name: str, followed: list[Tensor], others: list[Tensor], result: Any) -> None:
        weights = set[int]().union(*(self.following[id(x)][1] for x in followed))
        others = [x for x in others if x.requires_grad]
        behind = _weights_behind(others)
        if behind and (name not in _ADDING or behind.isdisjoint(weights)):
            return
        if any(isinstance(x, nn.Parameter) for x in others):  # a step of gradient descent
            return
        joined = bool(behind) or any(id(x) in self.joined for x in followed)
        for x in tensors_in(result):
            self.following[id(x)] = x, weights
            if joined:
                self.joined.add(id(x))


def _weights_behind(tensors: Iterable[Tensor]) -> set[int]:
    """The ids of the parameters that ``tensors`` follow from, or are."""
    tensors = list(tensors)
    nodes = islice(walk([x.grad_fn for x in tensors]), MOST)
    leaves = [*tensors, *(getattr(node, "variable", None) for node in nodes)]
    return {id(leaf) for leaf in leaves if isinstance(leaf, nn.Parameter)}
