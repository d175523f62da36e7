"""Changes of a network: each names its place, and ``apply`` makes it in a spec.

A layer that an alias repeats has one place, so that a change reaches every copy of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from gradprobe.errors import Place
from gradprobe.spec.network import InitSpec, LayerSpec, NetworkSpec, Value


class Wrap(NamedTuple):
    """Layers ``start`` to ``stop`` of the branch of ``owner`` become the branch of a residual.

    ``owner`` is the combination that holds them, ``None`` the network itself; ``norm`` is a layer
    to put in front of them.
    """

    owner: Place | None
    start: int
    stop: int
    arguments: Mapping[str, Value]
    norm: str | None = None


class Insert(NamedTuple):
    """A layer without arguments in front of layer ``at`` of the branch of ``owner``."""

    owner: Place | None
    at: int
    kind: str


class Rename(NamedTuple):
    """Another class for a layer whose arguments, if it has any, the other knows as well."""

    place: Place
    before: str
    kind: str


class SetArguments(NamedTuple):
    """Arguments of a ``residual``."""

    place: Place
    arguments: Mapping[str, Value]


class SetInit(NamedTuple):
    """Initialisations in the ``init`` that a layer has already."""

    place: Place
    init: Mapping[str, InitSpec]


class SetClassInit(NamedTuple):
    """Initialisations by class, in the spec's ``init`` section."""

    init: Mapping[str, Mapping[str, InitSpec]]


Change: TypeAlias = Wrap | Insert | Rename | SetArguments | SetInit | SetClassInit


def label(changes: Iterable[Change]) -> str:
    """The changes in one line, each word once: ``init kaiming_normal + skip``."""
    return " + ".join(dict.fromkeys(word for change in changes for word in words(change)))


def words(change: Change) -> tuple[str, ...]:
    """A change in a few words."""
    match change:
        case Wrap():
            norm = (f"{change.norm} in front",) if change.norm else ()
            return ("skip", *_argument_words(change.arguments), *norm)
        case Insert():
            return (change.kind,)
        case Rename():
            return (f"{change.before} → {change.kind}",)
        case SetArguments():
            return _argument_words(change.arguments)
        case SetInit():
            return (_init_words(change.init),)
        case SetClassInit():
            return tuple(map(_init_words, change.init.values()))


def _argument_words(arguments: Mapping[str, Value]) -> tuple[str, ...]:
    return tuple(key if value is True else f"{key} {value:g}" for key, value in arguments.items())


def _init_words(inits: Mapping[str, InitSpec]) -> str:
    weight = inits["weight"]
    numbers = "".join(f" {value}" for value in weight.arguments.values())
    return f"init {weight.name}{numbers}"


# ---- carrying it out


def apply(spec: NetworkSpec, changes: Iterable[Change]) -> NetworkSpec:
    """The spec with the changes made; nothing else differs."""
    todo = tuple(changes)
    init = dict(spec.init)
    for by_class in (change.init for change in todo if isinstance(change, SetClassInit)):
        init |= {kind: {**init.get(kind, {}), **inits} for kind, inits in by_class.items()}
    return replace(spec, layers=_listed(spec.layers, None, 0, todo), init=init)


def _listed(
    layers: tuple[LayerSpec, ...], owner: Place | None, branch: int, todo: tuple[Change, ...]
) -> tuple[LayerSpec, ...]:
    items = [_changed(layer, todo) for layer in layers]
    if branch:
        return tuple(items)
    here = {c for c in todo if isinstance(c, Insert) and c.owner == owner}
    for change in sorted(here, key=lambda c: -c.at):
        items.insert(change.at, LayerSpec(change.kind))
    wraps = {c.start: c for c in todo if isinstance(c, Wrap) and c.owner == owner}
    for start in sorted(wraps, reverse=True):
        wrap = wraps[start]
        norm = [LayerSpec(wrap.norm)] if wrap.norm else []
        body = (*norm, *items[start : wrap.stop])
        items[start : wrap.stop] = [LayerSpec("residual", wrap.arguments, (body,))]
    return tuple(items)


def _changed(layer: LayerSpec, todo: tuple[Change, ...]) -> LayerSpec:
    branches = tuple(
        _listed(branch, layer.place, index, todo) for index, branch in enumerate(layer.branches)
    )
    layer = replace(layer, branches=branches)
    for change in todo:
        match change:
            case Rename(place=layer.place):
                layer = replace(layer, kind=change.kind)
            case SetArguments(place=layer.place):
                layer = replace(layer, arguments={**layer.arguments, **change.arguments})
            case SetInit(place=layer.place):
                layer = replace(layer, init={**layer.init, **change.init})
    return layer


def same_network(spec: NetworkSpec, other: NetworkSpec) -> bool:
    """Whether both describe the same network and the same check, wherever they are written."""
    first, second = (_without_places(replace(s, source="", lines=())) for s in (spec, other))
    return bool(first == second)


def _without_places(value: Any) -> Any:
    """A spec, or a part of one, without what says where it is written."""
    match value:
        case Place():
            return None
        case Mapping():
            return {key: _without_places(item) for key, item in value.items()}
        case tuple():
            return tuple(map(_without_places, value))
    if not is_dataclass(value):
        return value
    names = (field.name for field in fields(value))
    return {name: _without_places(getattr(value, name)) for name in names}
