"""Draws without a gradient: what ``.sample()`` gives goes on to weights, and nothing comes back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.distributions import Distribution, Transform

from gradprobe.measure.follower import MOST, Follower
from gradprobe.model.tensors import tensors_in, walk

# What begins the name of a function that multiplies by a matrix of weights.
_WEIGHING = tuple("linear bilinear conv matmul mm bmm addmm baddbmm einsum gru lstm rnn".split())
# What puts two things beside each other, or one on the other: a skip, and no density.
_BESIDE = ("cat", "concat", "stack", "add")


class _Draw:
    """One draw: the nodes that made what it is drawn from, and what becomes of it."""

    def __init__(self, by: str, origins: Collection[Node]) -> None:
        self.by = by
        self.origins = set(origins)
        self.behind = set(islice(walk(origins), MOST))
        self.leaves = {id(getattr(node, "variable", None)) for node in self.behind}
        self.readers: list[tuple[Node | None, int]] = []  # what weights make of it; a weight's id
        self.sound = False

    def is_met_by(self, tensor: Tensor) -> bool:
        """Whether a gradient at ``tensor`` gets to what made the draw, or was before it."""
        if tensor.grad_fn is None:
            return False
        follows = not self.origins.isdisjoint(islice(walk([tensor.grad_fn]), MOST))
        return follows or tensor.grad_fn in self.behind


class Draws(Follower[list[_Draw]]):
    """Follows draws from one function of torch to the next, until weights read them.

    A draw is sound where a gradient gets to what it was drawn from past it: straight through, or by
    its own density, as a policy's. So is one that goes back into the weights that made it, step by
    step.
    """

    def __init__(self) -> None:
        super().__init__(torch.normal)
        self.draws: list[_Draw] = []

    def found(
        self, output: Any, loss: Tensor, names: Mapping[int, str]
    ) -> tuple[str, str, bool] | None:
        """What draws without a gradient, the weight that reads it, and whether it is put out."""
        behind = set(walk([loss.grad_fn]))
        out = [d for x in tensors_in(output) for d in self.following.get(id(x), (x, []))[1]]
        for draw in self.draws:
            readers = [names.get(key, "") for node, key in draw.readers if node in behind]
            if readers and not draw.sound:
                return draw.by, readers[0], draw in out
        return None

    def note(self, by: str, origins: Collection[Tensor], value: Any) -> None:
        """``value`` was drawn from ``origins`` without a gradient."""
        nodes = [x.grad_fn for x in origins if x.grad_fn is not None]
        if nodes and isinstance(value, Tensor) and not value.requires_grad:
            self.draws.append(_Draw(by, nodes))
            self.following[id(value)] = value, [self.draws[-1]]

    def begin(self, result: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        result = result.detach()  # its gradient is 0, whatever comes
        self.note("torch.normal()", list(tensors_in([args, kwargs])), result)
        return result

    def follow(self, name: str, followed: list[Tensor], others: list[Tensor], result: Any) -> None:
        draws = list(dict.fromkeys(d for x in followed for d in self.following[id(x)][1]))
        weights = [x for x in others if isinstance(x, nn.Parameter) and x.dim() > 1]
        made = next((x.grad_fn for x in tensors_in(result) if x.grad_fn is not None), None)
        if weights and name.startswith(_WEIGHING):
            for draw in draws:
                back = not draw.leaves.isdisjoint(map(id, weights))
                draw.sound |= back or any(map(draw.is_met_by, followed))
                draw.readers.append((made, id(weights[0])))
            return
        if not name.startswith(_BESIDE):
            for draw in draws:
                draw.sound |= any(map(draw.is_met_by, others))
        for x in tensors_in(result):
            self.following[id(x)] = x, draws


@contextmanager
def noting_samples(watch: Draws) -> Iterator[None]:
    """Meanwhile ``watch`` notes what torch's distributions draw that could have a gradient."""
    with ExitStack() as undo:
        for kind in _kinds(Distribution):
            if original := vars(kind).get("sample"):
                undo.callback(setattr, kind, "sample", original)
                kind.sample = _noting(watch, original)  # type: ignore[method-assign]
        yield


def _noting(watch: Draws, original: Any) -> Any:
    def sample(self: Distribution, *args: Any, **kwargs: Any) -> Any:
        value = original(self, *args, **kwargs)
        if self.has_rsample:
            watch.note(f"{type(self).__name__}.sample()", list(_inside(self)), value)
        return value

    return sample


def _kinds(kind: type[Distribution]) -> Iterator[type[Distribution]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _inside(value: Any) -> Iterator[Tensor]:
    """The tensors that a distribution is made of, and those that it is made from."""
    if isinstance(value, (Distribution, Transform)):
        for part in vars(value).values():
            yield from _inside(part)
    elif isinstance(value, list):
        for part in value:
            yield from _inside(part)
    elif isinstance(value, Tensor):
        yield value
