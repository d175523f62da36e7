"""The autograd graph behind a pass, read and not run: which row feeds which."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import Node

from gradprobe.model.tensors import nodes_behind

DATA = -1  # stands for the inputs among the calls that feed another
_MOST = 16  # of the calls that feed one: the last
_MANY = 300_000  # nodes: no larger graph is read
_ROWS = 256  # of a dropout's factors that are looked at


class Call(NamedTuple):
    """One call of a module: the node that made its output, and its arguments.

    Each argument is the node that made it and where it lies in memory.
    """

    module: object
    node: Node | None
    arguments: tuple[tuple[Node | None, int], ...] = ()


class Reads(NamedTuple):
    """What one call reads.

    ``feeders`` are the calls before it whose outputs it reads without another call between,
    ascending, with ``DATA`` for the inputs; ``None`` where that is not known. ``new``: one of its
    arguments follows from no earlier call of its module, and no earlier call of it got the same.
    """

    feeders: tuple[int, ...] | None = None
    new: bool = False


def reads(calls: Sequence[Call], inputs: Collection[Tensor]) -> list[Reads]:
    """What each call reads; nothing is known of a graph that is too large.

    Args:
        calls: in their order.
        inputs: leaves.
    """
    reader = _Reader({id(tensor) for tensor in inputs})
    return [reader.read(index, call) for index, call in enumerate(calls)]


class _Reader:
    """Reads the calls one after the other; each node is visited once."""

    def __init__(self, leaves: Collection[int]) -> None:
        self.leaves = leaves
        self.sources: dict[Node, frozenset[int]] = {}
        self.made_by: dict[Node, int] = {}
        self.behind: list[int] = []  # the calls that each call follows from, as bits of a number
        self.earlier: dict[object, int] = {}  # calls of each module so far, as bits
        self.places: dict[object, set[object]] = {}  # where its arguments lay, what joined them
        self.traced: list[Node] = []  # on the way to the arguments of the call

    def read(self, index: int, call: Call) -> Reads:
        """What the call reads."""
        own, places = self.earlier.get(call.module, 0), self.places.setdefault(call.module, set())
        fresh = self._fresh(call, own)
        new = bool(fresh - places)
        places |= fresh
        self.behind.append(self._ancestry(call.node))
        self.earlier[call.module] = own | 1 << index
        if call.node is None or len(self.sources) > _MANY:
            return Reads(None, new)
        handed_on = self.made_by.get(call.node)
        feeders = sorted(self.sources[call.node]) if handed_on is None else [handed_on]
        self.made_by[call.node] = index
        self.sources[call.node] = frozenset([index])
        return Reads(tuple(feeders), new)

    def _fresh(self, call: Call, own: int) -> set[object]:
        """The arguments that follow from no call in ``own``, and what joins such that do.

        That is, one half of a concatenation of an input and a state.
        """
        self.traced.clear()
        arguments: set[object] = {
            place for node, place in call.arguments if not self._ancestry(node) & own
        }
        return arguments | {
            (node, output)
            for joint in self.traced
            if self._ancestry(joint) & own
            for node, output in joint.next_functions
            if node is not None and self.sources.get(node) and not self._ancestry(node) & own
        }

    def _ancestry(self, node: Node | None) -> int:
        """The calls that ``node`` follows from, as bits."""
        if node is None or len(self.sources) > _MANY:
            return 0
        self.traced += _trace(node, self.sources, self.leaves)
        bits = 0
        for index in self.sources[node]:
            bits |= self.behind[index] | 1 << index if index != DATA else 0
        return bits


def _trace(root: Node, sources: dict[Node, frozenset[int]], leaves: Collection[int]) -> list[Node]:
    """Put what feeds each node behind ``root`` into ``sources``; the nodes that are new there."""
    new = []
    stack = [root] if root not in sources else []
    while stack:
        node = stack[-1]
        behind = nodes_behind(node)
        ahead = [n for n in behind if n not in sources]
        if ahead and len(sources) <= _MANY:
            stack += ahead
            continue
        stack.pop()
        if node not in sources:
            union = frozenset[int]().union(*(sources.get(n, frozenset()) for n in behind))
            leaf: Any = getattr(node, "variable", None)
            own = frozenset([DATA]) if id(leaf) in leaves else frozenset()
            new.append(node)
            sources[node] = own | (
                frozenset(sorted(union)[-_MOST:]) if len(union) > _MOST else union
            )
    return new


def names_of(indices: tuple[int, ...] | None, names: Mapping[int, str]) -> tuple[str, ...] | None:
    """The rows that feed one, by name; the inputs have the empty name."""
    if indices is None:
        return None
    return tuple(
        "" if index == DATA else names[index]
        for index in indices
        if index == DATA or index in names
    )


# ---- what a node does

# Nodes that hand their input on in another shape, dtype or order.
_SHAPES = frozenset(
    "View UnsafeView Reshape ReshapeAlias Squeeze Unsqueeze Transpose T Permute ToCopy Clone "
    "Expand Alias Contiguous Clamp ClampMin ClampMax".split()
)


# Nodes that are linear in what they get, whatever it is.
STRAIGHT = _SHAPES | frozenset(
    "torch::autograd::AccumulateGrad Mean Sum Select Slice Cat NativeBatchNorm NativeDropout "
    "AvgPool2D AdaptiveAvgPool2D".split()
) - {"Clamp", "ClampMin", "ClampMax"}


def kind_of(node: Node | None) -> str:
    """``Softmax`` of a ``SoftmaxBackward0``."""
    return _kind(node.name()) if node else ""


@cache
def _kind(name: str) -> str:
    return name.rstrip("0123456789").removesuffix("Backward")


def saved(node: Node, name: str) -> Tensor | None:
    """What the node saved; ``None`` where it is gone or was overwritten."""
    try:
        value = getattr(node, f"_saved_{name}", None)
    except RuntimeError:
        return None
    return value.detach() if isinstance(value, Tensor) else None


def signed(number: int) -> int:
    """A 64-bit number that torch hands out without its sign."""
    return number - (1 << 64) if number >= 1 << 63 else number


def next_behind(node: Node | None) -> Node | None:
    """The first that a gradient at ``node`` goes on to."""
    return next(iter(nodes_behind(node)), None) if node is not None else None


def behind_shapes(node: Node | None) -> Node | None:
    """``node``, or the first behind it that does more than to change the shape."""
    while node is not None and kind_of(node) in _SHAPES:
        node = next_behind(node)
    return node


def behind_constant(node: Node | None) -> Node | None:
    """``node``, or what a constant is added to there, as 1e-8 is in front of a logarithm."""
    adds = node is not None and kind_of(node) == "Add" and len(nodes_behind(node)) < 2
    return next_behind(node) if adds else node


def weight_behind(node: Node | None) -> nn.Parameter | None:
    """The parameter that ``node`` hands on, its shape aside."""
    weight = getattr(behind_shapes(node), "variable", None)
    return weight if isinstance(weight, nn.Parameter) else None


def is_weight(node: Node | None) -> bool:
    """Whether ``node`` hands on a parameter."""
    return weight_behind(node) is not None


def is_linear(node: Node) -> bool:
    """Whether it multiplies by a transposed parameter, as ``nn.Linear`` does."""
    behind = nodes_behind(node)
    return len(behind) > 1 and kind_of(behind[-1]) == "T" and is_weight(behind[-1])


def left_by_dropout(node: Node, kind: str) -> tuple[float, int] | None:
    """How many units a dropout leaves of a sample, or of a token, on average, and of how many.

    Its factors are 0, or 1 ÷ the share that is kept. One factor for a whole sample drops its path
    through a branch, as stochastic depth does, and no units.
    """
    sides = [n for n, _ in node.next_functions]
    constant = len(sides) == 2 and sides[0] is not None and sides[1] is None
    factors = saved(node, "other") if kind == "Mul" and constant else saved(node, "result1")
    if factors is None or factors.dim() < 2:
        return None
    rows = (factors.flatten(0, -2) if factors.dim() == 3 else factors.flatten(1))[:_ROWS]
    if rows.shape[1] < 2:
        return None
    most = rows.max() if rows.numel() else 0
    if (kind == "Mul" and not most > 1) or not bool(((rows == 0) | (rows == most)).all()):
        return None
    left = float((rows != 0).float().sum(1).mean())
    return (left, rows.shape[1]) if left < rows.shape[1] else None  # all of them: a scale
