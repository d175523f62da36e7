"""Which modules are the rows of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from gradprobe.errors import Place

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Row(NamedTuple):
    """One row to be: a module, by its ``named_modules()`` path."""

    name: str
    kind: str
    module: nn.Module
    place: Place | None = None
    level: int = 0
    contains: tuple[str, ...] = ()  # the kinds of layer inside, itself included

    @property
    def line(self) -> int | None:
        """Its line in the spec's file, where it has one."""
        return self.place.line if self.place else None

    @property
    def column(self) -> int | None:
        """Its column there."""
        return self.place.column if self.place else None


def find_rows(model: nn.Module) -> list[Row]:
    """The rows of a module that nobody described: its children, with containers opened.

    A model that only wraps one child (``self.model = …``) is looked through.
    """
    named = list(model.named_children())
    prefix = ""
    while len(named) == 1:
        name, child = named[0]
        inner = list(child.named_children())
        if not inner or isinstance(child, nn.MultiheadAttention):
            break
        prefix = f"{prefix}{name}."
        named = inner
    if not named:
        return [_row("(model)", model)]
    found = [row for name, child in named for row in _open(f"{prefix}{name}", child)]
    return list({row.module: row for row in reversed(found)}.values())[::-1]  # a shared one once


def with_leaves(rows: list[Row], places: dict[nn.Module, Place] | None = None) -> list[Row]:
    """``rows``, each followed by the leaves inside it as rows of level 1."""
    result = []
    seen: set[nn.Module] = set()  # a leaf that several blocks share has one hook
    for row in rows:
        result.append(row)
        for path, module in _leaf_modules(row.module):
            if path and module not in seen:
                seen.add(module)
                place = (places or {}).get(module, row.place)
                kind = type(module).__name__
                result.append(Row(f"{row.name}.{path}", kind, module, place, 1, (kind,)))
    return result


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Every module inside, itself included, each once; ``Module.modules()`` without its cost."""
    found: dict[nn.Module, None] = {}
    stack = [model]
    while stack:
        module = stack.pop()
        if module not in found:
            found[module] = None
            stack += [child for child in module._modules.values() if child is not None]
    return list(found)


def parameters_of(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Parameter]]:
    """Names, behind ``prefix``, and parameters, shared ones as often as they are registered."""
    found = [(prefix + name, p) for name, p in module._parameters.items() if p is not None]
    for name, child in module._modules.items():
        if child is not None:
            found += parameters_of(child, f"{prefix}{name}.")
    return found


def leaves_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that compute by themselves, by path, in the order of their registration."""
    return list(_leaf_modules(module))


def _open(name: str, module: nn.Module) -> Iterator[Row]:
    children = list(module.named_children())
    if type(module) in _CONTAINERS and children:
        for child_name, child in children:
            yield from _open(f"{name}.{child_name}", child)
    else:
        yield _row(name, module)


def _row(name: str, module: nn.Module) -> Row:
    kinds = sorted({type(inside).__name__ for inside in module.modules()})
    return Row(name, type(module).__name__, module, contains=tuple(kinds))


def _leaf_modules(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    children = list(module.named_children())
    # An attention computes with its projection's weight and never calls it.
    if not children or isinstance(module, nn.MultiheadAttention):
        yield path, module
        return
    for name, child in children:
        yield from _leaf_modules(child, f"{path}.{name}" if path else name)
