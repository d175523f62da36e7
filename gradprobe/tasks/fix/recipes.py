"""Recipes that may mend a network, in order of intrusion, and where in a spec each applies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gradprobe.errors import Place
from gradprobe.spec.layers import Trait, kinds
from gradprobe.spec.network import InitSpec, LayerSpec, NetworkSpec, Value, walk
from gradprobe.spec.vocabulary import layer_arguments
from gradprobe.tasks.fix.changes import (
    Change,
    Insert,
    Rename,
    SetArguments,
    SetClassInit,
    SetInit,
    Wrap,
)


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
MOST_CHOICES = 3  # in one recipe; a recipe of three holds a skip


def recipes() -> list[Recipe]:
    """Every recipe of one or two choices, the least intrusive first, then those of a skip and two.

    One change comes before two; of as many, those further up in ``CHOICES`` come first.
    """
    choices = [(field, value) for field, values in CHOICES.items() for value in values]
    candidates: list[tuple[int, int, Recipe]] = []
    for count in range(1, MOST_CHOICES + 1):
        for ranks in itertools.combinations(range(len(choices)), count):
            fields: dict[str, Any] = dict(choices[rank] for rank in ranks)
            if len(fields) == count and (count < MOST_CHOICES or "skip" in fields):
                candidates.append((count, sum(ranks), Recipe(**fields)))
    return [recipe for _, _, recipe in sorted(candidates, key=lambda entry: entry[:2])]


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

# What may replace an activation that lets no gradient through, or makes its inputs look alike.
SWAPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(kinds(Trait.SATURATES), ("Tanh", "ReLU")),
    **dict.fromkeys(kinds(Trait.DIES), ("LeakyReLU",)),
}


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
    segments = list(_repeated(spec.layers))
    if segments or any(layer.kind in ("repeat", "residual", "concat") for layer in spec.layers):
        return segments
    return list(_unrolled(spec.layers))


def _repeated(layers: tuple[LayerSpec, ...]) -> Iterator[Segment]:
    """The bodies of the repeats that hold weights and no skip."""
    for layer in layers:
        body = layer.branches[0] if layer.branches else ()
        if layer.kind == "repeat":
            kinds = {inner.kind for inner, _ in walk(body)}
            if not kinds & {"residual", "concat"} and kinds & WIDTHS.keys():
                yield Segment(layer.place, 0, len(body), body, layer.times)
        elif layer.kind == "sequential":
            yield from _repeated(body)


def _unrolled(layers: tuple[LayerSpec, ...]) -> Iterator[Segment]:
    """From one layer with weights to the next, where both are as wide; never the last, the head."""
    weighty = [index for index, layer in enumerate(layers) if layer.kind in WIDTHS]
    inner = zip(weighty, weighty[1:], weighty[2:], strict=False)
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
        if recipe.norm:
            norm = _norm(spec, recipe.norm, segment.inside)
            if norm is None or _normalised(segment.inside):
                return []
        changes.append(Wrap(segment.owner, segment.start, segment.stop, arguments, norm))
    return changes


def _scales(recipe: Recipe, blocks: int) -> dict[str, Value]:
    arguments: dict[str, Value] = {}
    if recipe.scale:
        arguments["branch_scale"] = float(f"{1 / math.sqrt(max(1, blocks)):.2g}")
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
    return any(layer.kind in kinds(Trait.NORM) for layer, _ in walk(inside))


def _is_activation(layer: LayerSpec) -> bool:
    return layer.kind in kinds(Trait.ACTIVATION) - {"Identity"}


def _renames(kind: str, blocks: list[tuple[LayerSpec, ...]]) -> Iterator[Change]:
    for block in blocks:
        for layer, _ in walk(block):
            fits = layer.is_leaf and set(layer.arguments) <= set(layer_arguments(kind))
            if kind in SWAPS.get(layer.kind, ()) and fits and layer.place:
                yield Rename(layer.place, layer.kind, kind)


def _inits(
    spec: NetworkSpec, recipe: Recipe, blocks: list[tuple[LayerSpec, ...]], scale: float
) -> list[Change]:
    """New weight inits: in the layers that have their own ``init``, else by class."""
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
    activations = {recipe.activation or layer.kind for layer in leaves if _is_activation(layer)}
    rectified = activations & kinds(Trait.RECTIFIES)
    return InitSpec("kaiming_normal" if rectified else "xavier_normal")


def _same(init: InitSpec, other: InitSpec) -> bool:
    return init.name == other.name and dict(init.arguments) == dict(other.arguments)
