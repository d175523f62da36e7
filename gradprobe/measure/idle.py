"""What has no part in this batch while others of its list have: experts, the heads of a pyramid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from gradprobe.measure.profile import GradientProfile, RowProfile, RowStatus, Use
from gradprobe.model.rows import modules_of


def uses_of(modules: list[nn.Module], called: set[nn.Module]) -> dict[int, Use]:
    """By id, the parameters of modules that the forward pass did not call.

    Those of an element of a list are idle where other elements of its class were called: an expert
    that got no token.
    """
    inside = {m for a in modules if isinstance(a, nn.MultiheadAttention) for m in modules_of(a)}
    lists = (nn.ParameterList, nn.ParameterDict)  # nobody calls them
    holders = [m for m in modules if m._parameters and m not in inside and not isinstance(m, lists)]
    used = {id(p) for m in (called | inside) for p in m._parameters.values()}
    uses = {id(p): Use.UNCALLED for m in holders for p in m.parameters() if m not in called}
    for module in modules:
        if isinstance(module, nn.ModuleList):
            elements = [element for element in module if element is not None]
            awake = {type(e) for e in elements if not called.isdisjoint(modules_of(e))}
            for element in elements:
                if type(element) in awake and called.isdisjoint(modules_of(element)):
                    uses |= {id(p): Use.IDLE for p in element.parameters()}
    return {key: use for key, use in uses.items() if key not in used}


def with_idle(profile: GradientProfile, model: nn.Module) -> GradientProfile:
    """``profile`` with the status of the idle rows, where it is known which row reads which."""
    rows = profile.ran
    if not any(row.gradient_norm == 0 for row in rows) or any(row.feeders is None for row in rows):
        return profile
    idle = _idle(rows, {row.name: _elements(row, model) for row in rows})
    return replace(
        profile,
        rows=tuple(
            row._replace(status=RowStatus.IDLE) if not row.level and row.name in idle else row
            for row in profile.rows
        ),
    )


def _elements(row: RowProfile, model: nn.Module) -> dict[str, str]:
    """The elements that the row is or stands in, by the path of their list."""
    elements: dict[str, str] = {}
    path, module = "", model
    for name in row.module.split("."):
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            elements[path] = name
        module, path = module._modules.get(name) or nn.Module(), f"{path}.{name}"
    return elements


def _idle(rows: Sequence[RowProfile], elements: Mapping[str, Mapping[str, str]]) -> set[str]:
    """The rows with a gradient of zero that are in nothing's way.

    Idle rows alone read them; or nothing does, and other elements of the list have a gradient; or
    what reads them also reads such an element, from which they do not follow: their gate is zero.
    A block is read by the next one, so that a dead one and all in front of it are not idle.
    """
    awake = {row.name for row in rows if row.gradient_norm}
    before: dict[str, set[str]] = {}  # by row: all that it follows from
    readers: dict[str, list[RowProfile]] = defaultdict(list)
    for row in rows:
        feeders = row.feeders or ()
        before[row.name] = set(feeders).union(*(before.get(name, ()) for name in feeders))
        for name in feeders:
            readers[name].append(row)

    def beside(row: RowProfile, names: Iterable[str]) -> bool:
        """Whether one of these is in another element of a list that the row is in."""
        own = elements[row.name].items()
        return any(elements.get(n, {}).get(path, e) != e for n in names for path, e in own)

    def is_mixed(row: RowProfile, reader: RowProfile) -> bool:
        siblings = awake.intersection(reader.feeders or ())
        apart = elements[row.name].keys().isdisjoint(elements[reader.name])
        return apart and beside(row, siblings) and not beside(row, before[row.name])

    idle: set[str] = set()
    for row in reversed(rows):
        reading = [reader for reader in readers[row.name] if reader.gradient_norm is not None]
        busy = [reader for reader in reading if reader.name not in idle]
        if row.gradient_norm != 0 or not awake.issuperset(reader.name for reader in busy):
            continue
        if all(is_mixed(row, reader) for reader in busy) and (reading or beside(row, awake)):
            idle.add(row.name)
    return idle
