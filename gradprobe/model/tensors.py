"""The tensors inside what a module takes and returns: found, or replaced, however it is nested."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves, tree_map

_WITHOUT_FLOAT64 = ("mps",)  # kinds of devices


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, on the processor where its own device has no such numbers."""
    here = tensor.cpu() if tensor.device.type in _WITHOUT_FLOAT64 else tensor
    return here.double()


def word_of(dtype: torch.dtype) -> str:
    """``float32``, as options have it."""
    return str(dtype).removeprefix("torch.")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples, mappings, dataclasses and what pytree knows beside."""
    if isinstance(value, Tensor):
        yield value
        return
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, Mapping):  # pytree knows dict and OrderedDict, and no subclass
            yield from tensors_in(list(leaf.values()))
        elif isinstance(leaf, (list, tuple)):
            yield from tensors_in(list(leaf))
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            yield from tensors_in([getattr(leaf, field.name, None) for field in fields(leaf)])


def named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested collections, each with its place: ``output['aux']``."""
    fields_of = getattr(value, "_fields", ())
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_tensors(item, f"{name}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            place = f".{fields_of[index]}" if fields_of else f"[{index}]"
            yield from named_tensors(item, name + place)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from named_tensors(getattr(value, field.name, None), f"{name}.{field.name}")


def first_tensor(value: Any) -> Tensor | None:
    """The first floating point tensor in ``value``, which is the main one by convention."""
    return next((tensor for tensor in tensors_in(value) if tensor.is_floating_point()), None)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """``value`` with ``function`` of each tensor in its place.

    Lists, tuples, named tuples, dicts and outputs that pytree knows, such as transformers'
    ``ModelOutput``, are made anew; any other object is handed on as it is.
    """
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, value)


def placed(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``tensor`` on ``device``, and in ``dtype`` where it is floating."""
    moved = tensor.to(device)
    return moved.to(dtype) if moved.is_floating_point() else moved


def with_tensor(value: Any, old: Tensor, new: Tensor) -> Any:
    """``value`` with ``new`` wherever ``old`` stands."""
    return map_tensors(lambda tensor: new if tensor is old else tensor, value)


def fresh(value: Any) -> Any:
    """``value`` with copies for its tensors, which a model may overwrite; one copy of each."""
    copies: dict[int, Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.detach().clone()
        return copies[id(tensor)]

    return map_tensors(copy, value)


def nodes_behind(node: Node) -> list[Node]:
    """The nodes that a gradient at ``node`` goes on to."""
    return [n for n, _ in node.next_functions if n is not None]


def walk(roots: Collection[Node | None], again: list[Node] | None = None) -> Iterator[Node]:
    """Each node of the graph behind ``roots`` once.

    Args:
        again: gets the nodes that are reached by a further way, as often as they are.
    """
    stack = [node for node in roots if node is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        yield node
        for behind, _ in node.next_functions:
            if behind not in seen and behind is not None:
                seen.add(behind)
                stack.append(behind)
            elif again is not None and behind is not None:
                again.append(behind)


def beside(main: Any, output: Any) -> list[Tensor]:
    """The floating tensors in ``output`` that ``main`` is not made from: a pooled state, not the
    encoder's that the decoder has read; nor a scalar, which is a loss."""
    behind = set(walk([t.grad_fn for t in tensors_in(main)]))
    nodes = ((t.grad_fn, t) for t in tensors_in(output) if t.is_floating_point() and t.dim())
    return [t for node, t in nodes if node is not None and node not in behind]


def stored(tensor: Tensor) -> Tensor:
    """``tensor`` itself; of a sparse one, the numbers that are there."""
    if tensor.layout is torch.strided:
        return tensor
    return tensor.coalesce().values() if tensor.is_sparse else tensor.values()


def real(values: Tensor) -> Tensor:
    """``values`` itself; of complex ones, a view with real and imaginary parts at its end."""
    return torch.view_as_real(values) if values.is_complex() else values
