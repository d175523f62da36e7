"""How much of what arrives at a row's output comes straight back to its input.

With input x and output y, J = ∂y/∂x, P_ij = 1 where x_j lands at y_i (see ``landing``), and v
random signs × |y|, the highway is the share of the input that lands somewhere × the mean slope on
its way, ⟨Jᵀv, Pᵀv⟩ / ‖Pᵀv‖². In a block y = x + F(x) that is vᵀJv / vᵀv; where channels are split,
permuted or concatenated, it is what comes through, wherever it lands. Where the skip goes around
the row, as in ``x = x + row(x)``, y is what the next row reads. A linear map S beside a branch,
y = S·x + F(x), counts by its gain: ⟨Jᵀv, Sᵀv⟩ / (‖Sᵀv‖ ‖v‖).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import GradientEdge, saved_tensors_hooks

from gradprobe.measure.blocks.chain import as_leaf
from gradprobe.measure.landing import Edge, carried, edge_at, origins, reachable, shortcut
from gradprobe.measure.recorder import Arguments, Recorder
from gradprobe.model.rows import Row
from gradprobe.model.seeds import derive, signs
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import first_tensor, in_float64, tensors_in, with_tensor

_PENDING = 4  # rows whose skip may go around them


class _Crossing(NamedTuple):
    """One row's way from where its input lands, back to its input."""

    along: Tensor  # ⟨v, y⟩
    ends: tuple[Edge, ...]  # the inputs
    landed: tuple[Tensor, ...]  # Pᵀv at each, or Sᵀv
    share: float | None  # of the inputs, how many land; None for a linear map
    size: float = 1.0  # ‖v‖², of a linear map
    instead: Mapping[Edge, Tensor] = {}  # v, behind norms that stand in front of y

    def highway(self) -> float:
        edges = [GradientEdge(*end) for end in self.ends]
        with ExitStack() as hooks:
            for at, v in self.instead.items():
                hooks.callback(at[0].register_prehook(partial(_replaced, at[1], v)).remove)
            backs = torch.autograd.grad(self.along, edges, retain_graph=True, allow_unused=True)
        product = energy = 0.0
        for back, way in zip(backs, map(in_float64, self.landed), strict=True):
            product += 0.0 if back is None else float((in_float64(back) * way).sum())
            energy += float(way.square().sum())
        if not energy:
            return 0.0
        if self.share is None:
            return product / math.sqrt(energy * self.size)
        return self.share * product / energy


class _Call(NamedTuple):
    """One call of a row: what it got, and what it gave."""

    row: Row
    inputs: tuple[Edge, ...]  # of the tensors of its first argument
    output: Edge | None = None


class Crossings(Recorder):
    """Notes how each row is crossed, by the row's name.

    A checkpointed row runs again in the backward pass: it gets a leaf there too, and nothing is
    noted.
    """

    def __init__(self, subject: Subject, leaves: bool = True) -> None:
        super().__init__(subject.rows)
        self.seed = subject.seed
        self.leaves = leaves  # whether what requires no gradient is made to
        self.by_name: dict[str, _Crossing] = {}
        self.pending: list[_Call] = []  # of which no input came out of the row itself
        self.over = False  # the forward pass

    def before(self, row: Row, args: Any, kwargs: Any) -> tuple[Any, Arguments | None]:
        x = first_tensor([args, kwargs])
        if x is None or is_functorch_wrapped_tensor(x):
            return None, None
        if not (torch.is_grad_enabled() and (x.requires_grad or self.leaves)):
            return None, None
        leaf = x if x.requires_grad else as_leaf(x)
        first = next(iter([*args, *kwargs.values()]))
        beside = [t for t in tensors_in(first) if t is not x and t.is_floating_point()]
        self._settle([leaf, *beside])
        edges = [edge_at(t) for t in (leaf, *beside)]
        note = x.shape, tuple(edge for edge in edges if edge is not None)
        # A copy, since the row may overwrite what it gets.
        return note, with_tensor((args, kwargs), x, leaf.clone())

    def after(
        self, row: Row, note: tuple[torch.Size, tuple[Edge, ...]] | None, output: Any
    ) -> None:
        y = first_tensor(output)
        if note is None or y is None or is_functorch_wrapped_tensor(y):
            return
        if self.over or row.name in self.by_name or not (y.requires_grad and y.numel()):
            return
        shape, inputs = note
        crossing = self._carried(row, [y], inputs[:1]) or self._shortcut(row, y, inputs[0])
        if crossing is None:
            self.pending = [*self.pending[1 - _PENDING :], _Call(row, inputs, edge_at(y))]
            if y.shape == shape:
                [v] = self._directions(row, [y])
                crossing = _Crossing(_along([y], [v]), inputs[:1], (v,), share=1.0)
        if crossing is not None:
            self.by_name[row.name] = crossing

    def end(self, output: Any) -> None:
        """The forward pass is over, and gave ``output``."""
        y = first_tensor(output)
        self._settle([] if y is None else [y])
        self.over = True

    def _settle(self, outputs: Sequence[Tensor]) -> None:
        """Look among what the next row reads, or the model gives, for skips around earlier rows."""
        starts = {edge: t for t in outputs if (edge := edge_at(t)) is not None and t.numel()}
        if self.over or not self.pending or not starts:
            return
        origins_of = {call: [origins(edge) for edge in call.inputs] for call in self.pending}
        stops = {edge for chains in origins_of.values() for chain in chains for edge in chain}
        reached = reachable(starts, stops | {call.output for call in self.pending if call.output})
        for call, chains in origins_of.items():
            nearest = [next((edge for edge in chain if edge in reached), None) for chain in chains]
            ends = tuple(dict.fromkeys(edge for edge in nearest if edge is not None))
            if call.output in reached:
                self.pending.remove(call)
                crossing = (
                    self._carried(call.row, list(starts.values()), ends, True) if ends else None
                )
                if crossing is not None:
                    self.by_name[call.row.name] = crossing

    def _carried(
        self, row: Row, outputs: list[Tensor], ends: tuple[Edge, ...], around: bool = False
    ) -> _Crossing | None:
        """The way of what lands, if anything does."""
        edges = [edge for y in outputs if (edge := edge_at(y)) is not None]
        ways = carried(dict(zip(edges, map(torch.ones_like, outputs), strict=True)), ends)
        if not any(bool(way.any()) for way in ways.values()):
            return None
        vs = self._directions(row, outputs)
        landed = carried(dict(zip(edges, vs, strict=True)), ends)
        count = sum(int(way.count_nonzero()) for way in ways.values())
        return _Crossing(
            along=_along(outputs, vs),
            ends=tuple(ways),
            landed=tuple(landed[end] / way.clamp_min(1) for end, way in ways.items()),
            share=count / sum(way.numel() for way in ways.values()),
            instead=_behind_norms(dict(zip(edges, vs, strict=True)), ends) if around else {},
        )

    def _shortcut(self, row: Row, y: Tensor, end: Edge) -> _Crossing | None:
        """The way through a linear map beside a branch, if there is one."""
        output = edge_at(y)
        [v] = self._directions(row, [y])
        way = shortcut(v, output, end) if output is not None else None
        size = float(in_float64(v).square().sum())
        return None if way is None else _Crossing(_along([y], [v]), (end,), (way,), None, size)

    def _directions(self, row: Row, outputs: list[Tensor]) -> list[Tensor]:
        """Random signs × the size of each number; at most 1, so that no square overflows."""
        generator = torch.Generator().manual_seed(derive(self.seed, f"highway/{row.name}"))
        sizes = [y.detach().abs() for y in outputs]
        largest = max(float(size.max()) for size in sizes)
        tiny = torch.finfo(sizes[0].dtype).tiny
        draws = [signs(size.shape, generator) for size in sizes]
        return [d.to(s) * (s / max(largest, tiny)) for d, s in zip(draws, sizes, strict=True)]


def _along(outputs: Sequence[Tensor], vs: Sequence[Tensor]) -> Tensor:
    """⟨v, y⟩, of which a checkpoint around it knows nothing."""
    with saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        products = [(y * v).sum() for y, v in zip(outputs, vs, strict=True)]
    return torch.stack(products).sum()


def _behind_norms(starts: Mapping[Edge, Tensor], ends: Collection[Edge]) -> dict[Edge, Tensor]:
    """v at the sums that norms in front of a row read, which are no part of the way around it."""
    chains = {start: origins(start) for start in starts}
    norms = {start: chain[-1] for start, chain in chains.items() if not set(chain) & set(ends)}
    moved = [carried({start: starts[start]}, [end]) for start, end in norms.items() if end != start]
    return {end: v for each in moved for end, v in each.items()}


def _replaced(output: int, v: Tensor, gradients: Sequence[Tensor | None]) -> Any:
    """``v`` in place of the gradient at one output of a node."""
    return tuple(v if index == output else gradient for index, gradient in enumerate(gradients))
