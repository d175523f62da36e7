"""Which modules are the rows of a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn

from gradprobe.errors import InputError, Place, suggestion
from gradprobe.model.repeats import CONTAINERS, children_of, holds_weights, repeated
from gradprobe.model.sharded import class_of

_NO_ROWS = (nn.modules.loss._Loss, nn.modules.dropout._DropoutNd)


class Row(NamedTuple):
    """One row to be: a module, by its ``named_modules()`` path."""

    name: str
    kind: str
    module: nn.Module
    place: Place | None = None
    level: int = 0
    contains: tuple[str, ...] = ()  # the kinds of layer inside, itself included
    is_block: bool = False  # one of the repeated modules that the model is made of
    call: int = 1  # of the module: one that is called again has a row for each call

    @property
    def line(self) -> int | None:
        """Its line in the spec's file, where it has one."""
        return self.place.line if self.place else None

    @property
    def column(self) -> int | None:
        """Its column there."""
        return self.place.column if self.place else None


def find_rows(model: nn.Module, pattern: str | None = None) -> list[Row]:
    """The rows of a module that nobody described: its blocks, and what stands around them.

    The blocks are the modules of one class that a list repeats (``nn.ModuleList``,
    ``nn.Sequential``), such as the layers of a transformer. Every module on the way to them is
    opened, so that what comes before and after is a row as well. Without a list of blocks the rows
    are the model's children, and a model with fewer than three rows that hold weights is opened
    where it holds most of them.

    Args:
        model: any module.
        pattern: a glob over ``named_modules()`` paths, one part per dot, that says which modules
            are the blocks: ``encoder.layer.*``.

    Raises:
        InputError: the pattern matches nothing.
    """
    blocks = _matching(model, pattern) if pattern else repeated(model)
    opened = {model, *_above(model, blocks)}
    if not pattern:
        _look_through(model, blocks, opened)
    rows = _distinct(_open("", model, blocks, opened))
    while not pattern and sum(holds_weights(row.module) for row in rows) < 3:
        closed = [r.module for r in rows if r.module not in blocks and r.module is not model]
        closed = [module for module in closed if children_of(module) and holds_weights(module)]
        if not closed:
            break
        opened.add(max(closed, key=lambda module: sum(p.numel() for p in module.parameters())))
        rows = _distinct(_open("", model, blocks, opened))
    return rows


def with_leaves(rows: list[Row], places: Mapping[nn.Module, Place]) -> list[Row]:
    """``rows``, each followed by the leaves inside it as rows of level 1."""
    result = []
    seen: set[nn.Module] = set()  # a leaf that several blocks share has one hook
    for row in rows:
        result.append(row)
        for path, module in leaves_of(row.module):
            if path and module not in seen:
                seen.add(module)
                place = places.get(module, row.place)
                kinds = _kinds(class_of(module))
                result.append(Row(f"{row.name}.{path}", kinds[0], module, place, 1, kinds))
    return result


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Every module inside, itself included, each once; ``Module.modules()`` without its cost."""
    modules: dict[nn.Module, None] = {}
    stack = [model]
    while stack:
        module = stack.pop()
        if module not in modules:
            modules[module] = None
            stack += [child for child in module._modules.values() if child is not None]
    return list(modules)


def parameters_of(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Parameter]]:
    """Names, behind ``prefix``, and parameters, shared ones as often as they are registered."""
    parameters = [(prefix + name, p) for name, p in module._parameters.items() if p is not None]
    for name, child in module._modules.items():
        if child is not None:
            parameters += parameters_of(child, f"{prefix}{name}.")
    return parameters


def leaves_of(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that compute by themselves, by path, in the order of their registration."""
    children = children_of(module)
    if not children:
        yield path, module
    for name, child in children.items():
        yield from leaves_of(child, f"{path}.{name}" if path else name)


def _matching(model: nn.Module, pattern: str) -> set[nn.Module]:
    parts = pattern.split(".")

    def matches(path: str) -> bool:
        names = path.split(".")
        return len(names) == len(parts) and all(map(fnmatchcase, names, parts))

    modules = {module for path, module in model.named_modules() if matches(path)}
    if not modules:
        paths = [path for path, _ in model.named_modules() if path]
        near = suggestion(pattern, paths) or f"paths: {', '.join([*paths[:6], '…'])}"
        raise InputError(f"rows: no module matches '{pattern}'", hint=near)
    return modules


def _above(model: nn.Module, blocks: set[nn.Module]) -> set[nn.Module]:
    """The modules that hold a block somewhere inside."""
    above: set[nn.Module] = set()

    def holds(module: nn.Module) -> bool:
        if module in blocks:
            return True
        inside = [holds(child) for child in children_of(module).values()]
        if any(inside):
            above.add(module)
        return any(inside)

    holds(model)
    return above


def _look_through(model: nn.Module, blocks: set[nn.Module], opened: set[nn.Module]) -> None:
    """Open what a model only wraps (``self.model = …``)."""
    children = list(children_of(model).values())
    while len(children) == 1 and children[0] not in blocks and children_of(children[0]):
        opened.add(children[0])
        children = list(children_of(children[0]).values())


def _open(
    name: str, module: nn.Module, blocks: set[nn.Module], opened: set[nn.Module]
) -> Iterator[Row]:
    """The rows inside; what computes a loss is none, and what drops numbers at random is none."""
    if isinstance(module, _NO_ROWS) and name:
        return
    children = children_of(module)
    goes_in = module in opened or class_of(module) in CONTAINERS
    if not children or module in blocks or not goes_in:
        kinds = {kind for of in set(map(class_of, module.modules())) for kind in _kinds(of)}
        contains, is_block = tuple(sorted(kinds)), module in blocks
        kind = class_of(module).__name__
        yield Row(name or "(model)", kind, module, contains=contains, is_block=is_block)
        return
    for child_name, child in children.items():
        yield from _open(f"{name}.{child_name}" if name else child_name, child, blocks, opened)


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """A module that is registered twice is one row, by its first name."""
    return list({row.module: row for row in reversed(list(rows))}.values())[::-1]


def _kinds(of: type[nn.Module]) -> tuple[str, ...]:
    """The name of a class and, where it is a user's own, that of its torch base."""
    torch_bases = (b.__name__ for b in of.__mro__ if b.__module__.startswith("torch.nn.modules."))
    base = next(torch_bases, "Module")
    return (of.__name__,) if base in ("Module", of.__name__) else (of.__name__, base)
