"""A network's weights: in words, and the same network with others."""

from __future__ import annotations

from dataclasses import replace

from gradprobe.spec.layers import Trait, kinds
from gradprobe.spec.network import InitSpec, LayerSpec, NetworkSpec, walk
from gradprobe.theory.activations import ACTIVATIONS
from gradprobe.theory.leaves import RULES

_WEIGHTED = kinds(Trait.WEIGHTED)
_DECISIVE = ACTIVATIONS.keys() - {"Identity"} | (kinds(Trait.NORM) & RULES.keys())


def about(spec: NetworkSpec) -> str:
    """``ReLU, BatchNorm1d, torch's default init``: what decides over the factors."""
    layers = [layer for layer, _ in walk(spec.layers)]
    kinds = [k for k in dict.fromkeys(layer.kind for layer in layers) if k in _DECISIVE]
    weighted = [layer for layer in layers if layer.kind in _WEIGHTED]
    inits = {_init_words(spec, layer) for layer in weighted}
    return ", ".join([*kinds, *(inits if len(inits) == 1 else ["several inits"])])


def _init_words(spec: NetworkSpec, layer: LayerSpec) -> str:
    init = {**spec.init.get(layer.kind, {}), **layer.init}.get("weight")
    if init is None:
        return "torch's default init"
    return " ".join([init.name, *(f"{key} {value}" for key, value in init.arguments.items())])


def with_init(spec: NetworkSpec, weight: InitSpec) -> NetworkSpec:
    """``spec`` with all Linear and convolution weights drawn by ``weight``, and zero biases."""

    def changed(layer: LayerSpec) -> LayerSpec:
        branches = tuple(tuple(map(changed, branch)) for branch in layer.branches)
        init = {} if layer.kind in _WEIGHTED else layer.init
        return replace(layer, branches=branches, init=init)

    new = {"weight": weight, "bias": InitSpec("zeros")}
    init = {**spec.init, **dict.fromkeys(_WEIGHTED, new)}
    return replace(spec, layers=tuple(map(changed, spec.layers)), init=init)
