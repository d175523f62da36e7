"""Changes that may mend a network: recipes in order of intrusion, and what they do to a spec.

A ``Recipe`` says what to change, ``changes_for`` where in a given spec, and ``apply`` carries it
out. ``sources.edit`` makes the same changes in the text of the file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from gradprobe.errors import Place
from gradprobe.spec.network import InitSpec, LayerSpec, NetworkSpec, Value, walk
from gradprobe.spec.vocabulary import ACTIVATIONS, layer_arguments

# ---- changes: each names its place, so that a layer that an alias repeats changes everywhere


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
    """Initialisations in a layer's own ``init``, which is there already."""

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
    """``init kaiming_normal + skip``"""
    return " + ".join(dict.fromkeys(word for change in changes for word in change.words))


def _argument_words(arguments: Mapping[str, Value]) -> tuple[str, ...]:
    return tuple(key if value is True else f"{key} {value:g}" for key, value in arguments.items())


def _init_words(inits: Mapping[str, InitSpec]) -> str:
    weight = inits["weight"]
    numbers = "".join(f" {value}" for value in weight.arguments.values())
    return f"init {weight.name}{numbers}"


# ---- recipes


class Recipe(NamedTuple):
    """What to change; ``None`` and ``False`` leave it as it is. In order of intrusion."""

    clean: bool = False  # skip_scale: 1
    init: str | None = None  # fitting: what the activation wants; tuned: the gain of reach 1
    norm: str | None = None
    activation: str | None = None
    skip: bool = False
    scale: bool = False  # branch_scale: 1/sqrt(blocks)
    zero: bool = False  # zero_init: true


CHOICES: dict[str, tuple[object, ...]] = {
    "clean": (True,),
    "init": ("fitting", "tuned"),
    "norm": ("layer", "batch"),
    "activation": ("Tanh", "ReLU", "LeakyReLU"),
    "skip": (True,),
    "scale": (True,),
    "zero": (True,),
}
MOST_CHOICES = 3  # of a recipe; so many only if one of them is a skip


def recipes() -> list[Recipe]:
    """Every recipe of one or two choices, the least intrusive first, then those of a skip and two.

    One change comes before two; of as many, those further up in ``CHOICES`` come first.
    """
    ranked = [
        (rank, field, value)
        for rank, (field, value) in enumerate(
            (field, value) for field, values in CHOICES.items() for value in values
        )
    ]
    found: list[tuple[int, int, Recipe]] = []
    for count in range(1, MOST_CHOICES + 1):
        for chosen in itertools.combinations(ranked, count):
            fields = {field: value for _, field, value in chosen}
            if len(fields) == count and (count < MOST_CHOICES or "skip" in fields):
                intrusion = sum(rank for rank, _, _ in chosen)
                found.append((count, intrusion, Recipe(**fields)))  # type: ignore[arg-type]
    return [recipe for _, _, recipe in sorted(found, key=lambda entry: entry[:2])]


# ---- where a recipe applies


class Segment(NamedTuple):
    """A plain block: layers ``start`` to ``stop`` of ``layers``, ``times`` times in a row."""

    owner: Place | None
    start: int
    stop: int
    layers: tuple[LayerSpec, ...]
    times: int

    @property
    def inside(self) -> tuple[LayerSpec, ...]:
        return self.layers[self.start : self.stop]


# The argument that is the number of features that a layer with weights hands on.
WIDTHS = {"Linear": "out_features"} | {f"Conv{n}d": "out_channels" for n in (1, 2, 3)}

_RECTIFIERS = frozenset(
    "ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU GELU SiLU Mish Hardswish".split()
)

# What may stand for an activation that lets no gradient through, or lets its inputs look alike.
_SATURATING = "Sigmoid Hardsigmoid LogSigmoid Softplus Softsign Hardshrink Softshrink Tanhshrink"
SWAPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_SATURATING.split(), ("Tanh", "ReLU")),
    "ReLU": ("LeakyReLU",),
    "ReLU6": ("LeakyReLU",),
}
_NOT_ACTIVATIONS = frozenset({"Identity"})


def changes_for(spec: NetworkSpec, recipe: Recipe, scale: float = 1.0) -> tuple[Change, ...]:
    """The changes that ``recipe`` makes to ``spec``; empty where any part of it has no place there.

    Args:
        spec: a parsed spec, whose layers know their places.
        recipe: what to change.
        scale: weight variance × fan_in of a tuned initialisation.
    """
    segments = find_segments(spec)
    residuals = [(layer, times) for layer, times in walk(spec.layers) if layer.kind == "residual"]
    parts: list[list[Change]] = []
    if recipe.skip:
        parts.append(_skips(spec, recipe, segments))
    elif recipe.norm:
        parts.append([*_norms(spec, recipe.norm, segments, residuals)])
    if recipe.clean or (not recipe.skip and (recipe.scale or recipe.zero)):
        parts.append(_arguments(recipe, residuals))
    if recipe.activation:
        parts.append([*_renames(recipe.activation, _blocks(segments, residuals))])
    if recipe.init:
        parts.append(_inits(spec, recipe, _blocks(segments, residuals), scale))
    return tuple(change for part in parts for change in part) if all(parts) else ()


def find_segments(spec: NetworkSpec) -> list[Segment]:
    """The plain blocks: bodies of repeats without a skip, else runs of layers of equal width."""
    found = list(_repeated(spec.layers))
    if found or any(layer.kind in ("repeat", "residual", "concat") for layer in spec.layers):
        return found
    return list(_unrolled(spec.layers))


def _repeated(layers: tuple[LayerSpec, ...]) -> Iterator[Segment]:
    for layer in layers:
        body = layer.branches[0] if layer.branches else ()
        if layer.kind == "repeat":
            inside = [one for one, _ in walk(body)]
            skips = any(one.kind in ("residual", "concat") for one in inside)
            if not skips and any(one.kind in WIDTHS for one in inside):
                yield Segment(layer.place, 0, len(body), body, layer.times)
        elif layer.kind == "sequential":
            yield from _repeated(body)


def _unrolled(layers: tuple[LayerSpec, ...]) -> Iterator[Segment]:
    """From one layer with weights to the next, where both are as wide; never the last, the head."""
    weighty = [index for index, layer in enumerate(layers) if layer.kind in WIDTHS]
    inner = list(zip(weighty, weighty[1:], weighty[2:], strict=False))
    equal = [(i, stop) for before, i, stop in inner if _width(layers[before]) == _width(layers[i])]
    for start, stop in equal:
        yield Segment(None, start, stop, layers, len(equal))


def _width(layer: LayerSpec) -> tuple[str, Value]:
    return layer.kind, layer.arguments[WIDTHS[layer.kind]]


def _blocks(
    segments: list[Segment], residuals: list[tuple[LayerSpec, int]]
) -> list[tuple[LayerSpec, ...]]:
    return [s.inside for s in segments] + [layer.branches[0] for layer, _ in residuals]


def _skips(spec: NetworkSpec, recipe: Recipe, segments: list[Segment]) -> list[Change]:
    arguments = _scales(recipe, sum(s.times for s in {s.owner: s for s in segments}.values()))
    changes: list[Change] = []
    for segment in segments:
        norm = None
        if recipe.norm and not _normalised(segment.inside):
            norm = _norm(spec, recipe.norm, segment.inside)
        if recipe.norm and norm is None:
            return []
        changes.append(Wrap(segment.owner, segment.start, segment.stop, arguments, norm))
    return changes


def _scales(recipe: Recipe, blocks: int) -> dict[str, Value]:
    arguments: dict[str, Value] = {}
    if recipe.scale:
        arguments["branch_scale"] = _rounded(1 / math.sqrt(max(1, blocks)))
    if recipe.zero:
        arguments["zero_init"] = True
    return arguments


def _arguments(recipe: Recipe, residuals: list[tuple[LayerSpec, int]]) -> list[Change]:
    wanted = _scales(recipe, sum(times for _, times in residuals))
    if recipe.clean:
        if not any(layer.arguments.get("skip_scale", 1) != 1 for layer, _ in residuals):
            return []
        wanted["skip_scale"] = 1.0
    changes: list[Change] = []
    for layer, _ in residuals:
        fresh = {k: v for k, v in wanted.items() if layer.arguments.get(k, _NEUTRAL[k]) != v}
        if layer.place and fresh:
            changes.append(SetArguments(layer.place, fresh))
    return changes


_NEUTRAL: dict[str, Value] = {"skip_scale": 1.0, "branch_scale": 1.0, "zero_init": False}


def _norms(
    spec: NetworkSpec,
    choice: str,
    segments: list[Segment],
    residuals: list[tuple[LayerSpec, int]],
) -> Iterator[Change]:
    """Between weights and activation in a plain block, in front of the branch of a residual."""
    for segment in segments:
        norm = _norm(spec, choice, segment.inside)
        if norm is None or _normalised(segment.inside):
            continue
        for index in range(segment.start, segment.stop):
            if segment.layers[index].kind in WIDTHS:
                follows = index + 1 < segment.stop and _is_activation(segment.layers[index + 1])
                yield Insert(segment.owner, index + follows, norm)
    for layer, _ in residuals:
        norm = _norm(spec, choice, layer.branches[0])
        if norm is not None and not _normalised(layer.branches[0]):
            yield Insert(layer.place, 0, norm)


def _norm(spec: NetworkSpec, choice: str, inside: tuple[LayerSpec, ...]) -> str | None:
    """``LayerNorm`` over features or ``BatchNorm`` over channels, whichever fits these layers."""
    convolutions = [layer.kind[-2:] for layer in inside if layer.kind.startswith("Conv")]
    if convolutions:
        return f"BatchNorm{convolutions[0]}" if choice == "batch" else None
    if choice == "layer":
        return "LayerNorm"
    return "BatchNorm1d" if len(spec.input.shape) == 1 and spec.input.tokens is None else None


def _normalised(inside: tuple[LayerSpec, ...]) -> bool:
    return any("Norm" in layer.kind for layer, _ in walk(inside))


def _is_activation(layer: LayerSpec) -> bool:
    return layer.kind in ACTIVATIONS.values() and layer.kind not in _NOT_ACTIVATIONS


def _renames(kind: str, blocks: list[tuple[LayerSpec, ...]]) -> Iterator[Change]:
    for block in blocks:
        for layer, _ in walk(block):
            known = layer.is_leaf and set(layer.arguments) <= set(layer_arguments(kind))
            if kind in SWAPS.get(layer.kind, ()) and known and layer.place:
                yield Rename(layer.place, layer.kind, kind)


def _inits(
    spec: NetworkSpec, recipe: Recipe, blocks: list[tuple[LayerSpec, ...]], scale: float
) -> list[Change]:
    """In the layers that have their own ``init``, else by class."""
    changes: list[Change] = []
    by_class: dict[str, Mapping[str, InitSpec]] = {}
    for block in blocks:
        leaves = [layer for layer, _ in walk(block)]
        weight = _weight_init(recipe, leaves, scale)
        for layer in leaves:
            if layer.kind not in WIDTHS or layer.place is None:
                continue
            common = spec.init.get(layer.kind, {})
            inits = {"weight": weight}
            if layer.arguments.get("bias") is not False and "bias" not in {**common, **layer.init}:
                inits["bias"] = InitSpec("zeros")
            if "weight" in layer.init:
                if not _same(layer.init["weight"], weight):
                    changes.append(SetInit(layer.place, inits))
            elif "weight" not in common or not _same(common["weight"], weight):
                by_class.setdefault(layer.kind, inits)
    return changes + ([SetClassInit(by_class)] if by_class else [])


def _weight_init(recipe: Recipe, leaves: list[LayerSpec], scale: float) -> InitSpec:
    if recipe.init == "tuned":
        return InitSpec("variance_scaling", {"scale": scale})
    kinds = {recipe.activation or layer.kind for layer in leaves if _is_activation(layer)}
    return InitSpec("kaiming_normal" if kinds & _RECTIFIERS else "xavier_normal")


def _same(one: InitSpec, other: InitSpec) -> bool:
    return one.name == other.name and dict(one.arguments) == dict(other.arguments)


def _rounded(value: float) -> float:
    """To two significant digits, as one would write it."""
    return float(f"{value:.2g}")


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


def same_network(one: NetworkSpec, other: NetworkSpec) -> bool:
    """Whether both describe the same network and the same check, wherever it is written."""
    return _bare(one) == _bare(other)


def _bare(spec: NetworkSpec) -> NetworkSpec:
    return replace(
        spec,
        input=replace(spec.input, place=None),
        layers=tuple(map(_bare_layer, spec.layers)),
        init={kind: _bare_inits(inits) for kind, inits in spec.init.items()},
        check=replace(
            spec.check, ignore=tuple(replace(one, place=None) for one in spec.check.ignore)
        ),
        source="",
        lines=(),
    )


def _bare_layer(layer: LayerSpec) -> LayerSpec:
    branches = tuple(tuple(map(_bare_layer, branch)) for branch in layer.branches)
    return replace(layer, branches=branches, init=_bare_inits(layer.init), place=None)


def _bare_inits(inits: Mapping[str, InitSpec]) -> dict[str, InitSpec]:
    return {key: replace(init, place=None) for key, init in inits.items()}
