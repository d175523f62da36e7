"""The state of a loop, whoever wrote it, along its steps: read off the autograd graph.

A weight that several nodes multiply by is used once a step, and what it is multiplied with is the
state, or a part of what holds it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

from gradprobe.measure.graph import behind_shapes, kind_of, next_behind, saved, weight_behind
from gradprobe.measure.surroundings import StateProfile
from gradprobe.model.tensors import in_float64, walk

_LOOP = 3  # as many uses of one weight may be steps of a loop
_STEPS = 64  # steps that are looked at, the first and the last among them

# By kind of node: under which names it saves its operands, by their places.
_OPERANDS = {
    "Mm": {0: "self", 1: "mat2"},
    "Addmm": {1: "mat1", 2: "mat2"},
    "Convolution": {0: "input", 1: "weight"},
}
_PARTS = frozenset(("Select", "Slice", "Split", "Unbind", "Index", "Narrow"))


class _Use(NamedTuple):
    node: Node  # that multiplies by the weight
    other: str  # the name under which it saved what is multiplied


class Loops:
    """The nodes behind ``roots``, and those of them that multiply by a weight of a loop, by it."""

    def __init__(self, roots: Collection[Node | None]) -> None:
        again: list[Node] = []
        self.nodes = list(walk(roots, again))
        self.uses: dict[int, list[_Use]] = {}
        if max(Counter(again).values(), default=0) >= _LOOP - 1:  # else no weight is used so often
            for node in self.nodes:
                self._note(node)

    def _note(self, node: Node) -> None:
        operands = _OPERANDS.get(kind_of(node))
        if operands is None:
            return
        behind = node.next_functions
        for place, other in (tuple(operands), tuple(operands)[::-1]):
            weight = weight_behind(behind[place][0])
            if weight is not None and not _is_data(behind[other][0]):
                self.uses.setdefault(id(weight), []).append(_Use(node, operands[other]))

    def weights(self) -> list[int]:
        """The ids of the weights that are used in each step of a loop."""
        return [key for key, uses in self.uses.items() if len(uses) >= _LOOP]

    def state(self, names: Mapping[int, str]) -> StateProfile | None:
        """The state that grows most.

        Args:
            names: of the weights, by their ids.
        """
        states = [
            StateProfile(weight=names.get(key, "a weight"), growth=growth, steps=len(uses))
            for key, uses in self.uses.items()
            if len(uses) >= _LOOP and (growth := _growth_over(uses))
        ]
        return max(states, key=lambda state: state.growth, default=None)


def _is_data(node: Node | None) -> bool:
    """Whether it hands on the inputs, or a part of them."""
    while node is not None:
        inner = next_behind(node) if kind_of(node) in _PARTS else behind_shapes(node)
        if inner is node:
            break
        node = inner
    return node is None or hasattr(node, "variable")


def _growth_over(uses: list[_Use]) -> float | None:
    """How what the weight multiplies grows: the largest RMS ÷ the first that is not 0."""
    uses = sorted(uses, key=lambda use: use.node._sequence_nr())
    stride = -(-len(uses) // _STEPS)
    sizes = [_rms(saved(use.node, use.other)) for use in [*uses[:-1:stride], uses[-1]]]
    present = [size for size in sizes if size]
    if len(present) < 2 or not math.isfinite(present[0]):
        return None
    return max(size if math.isfinite(size) else math.inf for size in present) / present[0]


def _rms(x: Tensor | None) -> float | None:
    return None if x is None else float(in_float64(x).square().mean().sqrt())
