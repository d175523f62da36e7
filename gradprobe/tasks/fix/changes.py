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

    @property
    def words(self) -> tuple[str, ...]:
        norm = (f"{self.norm} in front",) if self.norm else ()
        return ("skip", *_argument_words(self.arguments), *norm)


class Insert(NamedTuple):
    """A layer without arguments in front of layer ``at`` of the branch of ``owner``."""

    owner: Place | None
    at: int
    kind: str

    @property
    def words(self) -> tuple[str, ...]:
        return (self.kind,)


class Rename(NamedTuple):
    """Another class for a layer whose arguments, if it has any, the other knows as well."""

    place: Place
    before: str
    kind: str

    @property
    def words(self) -> tuple[str, ...]:
        return (f"{self.before} → {self.kind}",)


class SetArguments(NamedTuple):
    """Arguments of a ``residual``."""

    place: Place
    arguments: Mapping[str, Value]

    @property
    def words(self) -> tuple[str, ...]:
        return _argument_words(self.arguments)


class SetInit(NamedTuple):
    """Initialisations in the ``init`` that a layer has already."""

    place: Place
    init: Mapping[str, InitSpec]

    @property
    def words(self) -> tuple[str, ...]:
        return (_init_words(self.init),)


class SetClassInit(NamedTuple):
    """Initialisations by class, in the spec's ``init`` section."""

    init: Mapping[str, Mapping[str, InitSpec]]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(_init_words(inits) for inits in self.init.values())


Change: TypeAlias = Wrap | Insert | Rename | SetArguments | SetInit | SetClassInit


def label(changes: Iterable[Change]) -> str:
    """The changes in one line, each word once: ``init kaiming_normal + skip``."""
    return " + ".join(dict.fromkeys(word for change in changes for word in change.words))


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
    init = {kind: dict(inits) for kind, inits in spec.init.items()}
    for change in todo:
        if isinstance(change, SetClassInit):
            for kind, inits in change.init.items():
                init[kind] = {**init.get(kind, {}), **inits}
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
        if isinstance(change, (Rename, SetArguments, SetInit)) and change.place == layer.place:
            match change:
                case Rename():
                    layer = replace(layer, kind=change.kind)
                case SetArguments():
                    layer = replace(layer, arguments={**layer.arguments, **change.arguments})
                case SetInit():
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
