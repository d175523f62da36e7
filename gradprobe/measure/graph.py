"""The autograd graph behind a pass, read and not run: which row feeds which."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

DATA = -1  # stands for the inputs among the calls that feed another
_MOST = 16  # of the calls that feed one: the last
_MANY = 300_000  # nodes: no larger graph is read


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
    leaves = {id(tensor) for tensor in inputs}
    sources: dict[Node, frozenset[int]] = {}
    made_by: dict[Node, int] = {}
    behind: list[int] = []  # of each call: the calls that it follows from, as the bits of a number
    earlier: dict[object, int] = {}  # calls of each module so far, as bits
    seen: dict[object, set[int]] = {}  # where its arguments lay
    result: list[Reads] = []

    def ancestry(node: Node | None) -> int:
        if node is None or len(sources) > _MANY:
            return 0
        _trace(node, sources, leaves)
        bits = 0
        for i in sources[node]:
            bits |= behind[i] | 1 << i if i != DATA else 0
        return bits

    for index, call in enumerate(calls):
        own, places = earlier.get(call.module, 0), seen.setdefault(call.module, set())
        fresh = [place for node, place in call.arguments if not ancestry(node) & own]
        new = any(place not in places for place in fresh)
        places.update(fresh)
        behind.append(ancestry(call.node))
        feeders: tuple[int, ...] | None = None
        if call.node is not None and len(sources) <= _MANY:
            handed_on = call.node in made_by
            feeders = (made_by[call.node],) if handed_on else tuple(sorted(sources[call.node]))
            made_by[call.node] = index
            sources[call.node] = frozenset([index])
        result.append(Reads(feeders, new))
        earlier[call.module] = own | 1 << index
    return result


def _trace(root: Node, sources: dict[Node, frozenset[int]], leaves: Collection[int]) -> None:
    """Put what feeds each node behind ``root`` into ``sources``."""
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
            sources[node] = own | (
                frozenset(sorted(union)[-_MOST:]) if len(union) > _MOST else union
            )


def nodes_behind(node: Node) -> list[Node]:
    """The nodes that a gradient at ``node`` goes on to."""
    return [n for n, _ in node.next_functions if n is not None]


def walk(roots: Collection[Node | None]) -> Iterator[Node]:
    """Each node of the graph behind ``roots`` once."""
    stack = [node for node in roots if node is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        yield node
        new = [n for n in nodes_behind(node) if n not in seen]
        seen.update(new)
        stack += new


def names_of(indices: tuple[int, ...] | None, names: Mapping[int, str]) -> tuple[str, ...] | None:
    """The rows that feed one, by name; the inputs have the empty name."""
    if indices is None:
        return None
    return tuple(
        "" if index == DATA else names[index]
        for index in indices
        if index == DATA or index in names
    )
