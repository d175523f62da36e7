"""Draw small networks at random, in the spec language: one line of JSON each, for ``train.py``.

    SEVEN=plain,residual,prenorm,postnorm,conv,transformer,recurrent
    sample.py --seed 1 --count 90 --kinds prenorm,postnorm,conv,transformer,recurrent
    sample.py --seed 2 --count 100 --small --kinds $SEVEN
    sample.py --seed 3 --count 26 --kinds conv,transformer,recurrent,prenorm --wild
    sample.py --seed 4 --count 110 --small --wild --kinds $SEVEN
    sample.py --seed 5 --count 20 --kinds conv,transformer,recurrent,prenorm --wild --small
    sample.py --seed 6 --count 110 --kinds plain,residual,prenorm,postnorm
    sample.py --seed 7 --count 60 --kinds conv,transformer,recurrent --wild
    sample.py --seed 8 --count 24 --kinds resnet
    sample.py --seed 9 --count 100 --kinds plain,residual,prenorm,postnorm
    sample.py --seed 10 --count 80 --kinds conv,transformer,recurrent,resnet --wild
    sample.py --seed 11 --count 40 --kinds plain,residual,prenorm,postnorm --wild
    sample.py --seed 12 --count 136 --kinds plain,residual,prenorm,postnorm
    sample.py --seed 13 --count 110 --kinds conv,transformer,recurrent,resnet --wild
    sample.py --seed 14 --count 54 --kinds plain,residual,prenorm,postnorm --wild
    sample.py --seed 15 --count 26 --kinds resnet --deep
    sample.py --seed 16 --count 18 --kinds conv --deep
    sample.py --seed 17 --count 109 --kinds plain,residual,prenorm,postnorm
    sample.py --seed 18 --count 88 --kinds conv,transformer,recurrent,resnet --wild
    sample.py --seed 19 --count 43 --kinds plain,residual,prenorm,postnorm --wild
    sample.py --seed 20 --count 16 --kinds resnet,conv --deep
    sample.py --seed 21 --count 218 --kinds plain,residual,prenorm,postnorm
    sample.py --seed 22 --count 176 --kinds conv,transformer,recurrent,resnet --wild
    sample.py --seed 23 --count 86 --kinds plain,residual,prenorm,postnorm --wild
    sample.py --seed 24 --count 32 --kinds resnet,conv --deep

    sample.py --seed 25 --count 272 --kinds plain,residual,prenorm,postnorm
    sample.py --seed 26 --count 220 --kinds conv,transformer,recurrent,resnet --wild
    sample.py --seed 27 --count 108 --kinds plain,residual,prenorm,postnorm --wild
    sample.py --seed 28 --count 40 --kinds resnet,conv --deep
    sample.py --seed 29 --count 218 --kinds plain,residual,prenorm,postnorm
    sample.py --seed 30 --count 176 --kinds conv,transformer,recurrent,resnet --wild
    sample.py --seed 31 --count 86 --kinds plain,residual,prenorm,postnorm --wild
    sample.py --seed 32 --count 32 --kinds resnet,conv --deep

The last eight made ``outcomes_report.jsonl``, the others ``outcomes_fit.jsonl``; of seeds 12 to 16,
198 networks were trained, those that had come to their turn when a signal was mended. Which
networks the report has was decided before the first of each four seeds was trained.

``--wild`` draws deeper ones, and inits far from what anybody would choose; ``--small`` narrower
ones, which train in half the time; ``--deep`` convolutional ones of up to 54 blocks. The same seed
gives the same networks; the n-th does not depend on how many are asked for. All take the 64 pixels
of a digit and give 10 classes.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

Layer = str | dict[str, Any]

ACTIVATIONS = "ReLU LeakyReLU GELU SiLU Tanh Hardtanh SELU Sigmoid Identity".split()
NORMS = ("none", "none", "batch", "layer")
PER_SEED = 10_000  # ids


class Sizes(NamedTuple):
    """How large the networks of each kind may be: widths to choose from, and largest depths."""

    mlp: tuple[int, ...]
    mlp_depth: int
    conv: tuple[int, ...]
    conv_depth: int
    transformer: tuple[int, ...]
    transformer_depth: int
    heads: int
    recurrent: tuple[int, ...]
    resnet_depth: int


USUAL = Sizes((32, 48, 64, 64, 64, 80), 56, (6, 8), 18, (12, 16), 9, 4, (16, 24), 24)
SMALL = Sizes((32, 32, 40), 48, (6,), 12, (12,), 6, 1, (16,), 12)
DEEP = USUAL._replace(conv_depth=36, resnet_depth=54)


class Draw:
    """What one network is made of, and the words of its ``config``."""

    def __init__(self, random: Random, wild: bool, sizes: Sizes) -> None:
        self.random = random
        self.wild = wild
        self.sizes = sizes
        self.config: dict[str, Any] = {}

    def note(self, key: str, value: Any) -> Any:
        self.config[key] = value
        return value

    def choose(self, key: str, options: Any) -> Any:
        return self.note(key, self.random.choice(list(options)))

    def depth(self, low: int, high: int) -> int:
        """More shallow ones than deep ones: they are cheap, and depth is where things go wrong."""
        drawn = low + (high + 1 - low) * self.random.random() ** (0.7 if self.wild else 1.5)
        return int(self.note("depth", min(high, int(drawn))))

    def logarithmic(self, low: float, high: float) -> float:
        return float(f"{math.exp(self.random.uniform(math.log(low), math.log(high))):.2g}")

    def init(self) -> dict[str, Any] | None:
        """The ``init`` of every layer in the trunk; ``None``: torch's own."""
        names = "gain normal" if self.wild else "default he xavier orthogonal gain*4 normal*2"
        name = self.random.choice(_spelt_out(names))
        weight: Any = {"he": "kaiming_normal", "xavier": "xavier_normal"}.get(name, name)
        if name == "gain":
            gain = self.logarithmic(*((0.2, 6) if self.wild else (0.5, 4)))
            name += f"{gain:g}"
            scale = round(gain**2, 4)
            weight = {
                "variance_scaling": {"scale": scale, "mode": "fan_in", "distribution": "normal"}
            }
        elif name == "normal":
            std = self.logarithmic(*((0.003, 0.6) if self.wild else (0.01, 0.3)))
            name += f"{std:g}"
            weight = {"normal": {"std": std}}
        self.note("init", name)
        return None if weight == "default" else {"weight": weight, "bias": "zeros"}

    def ends(self, init: Any) -> dict[str, Any]:
        """The ``init`` of stem and head: a plain one, whatever the trunk has."""
        return {} if init is None else {"init": {"weight": "xavier_normal", "bias": "zeros"}}

    def residual(self, layers: list[Layer], depth: int) -> Layer:
        """A residual around ``layers``, now and then scaled or with a branch that starts at 0."""
        words: dict[str, Any] = {}
        how = self.random.choice(["as it is"] * 5 + ["skip", "branch", "zero"])
        if how == "skip":
            words = {"skip_scale": self.choose("skip", (0.5, 0.7, 0.9))}
        elif how == "branch":
            words = {"branch_scale": self.note("branch", round(1 / math.sqrt(depth), 3))}
        elif how == "zero" and layers[-1] != "Sigmoid":
            words = {"zero_init": self.note("zero", True)}
        return {"residual": {"layers": layers, **words}}


def _spelt_out(names: str) -> list[str]:
    """``a b*2``: a, b, b"""
    counted = [name.partition("*") for name in names.split()]
    return [name for name, _, times in counted for _ in range(int(times or 1))]


def _layer(kind: str, words: dict[str, Any], init: dict[str, Any] | None) -> Layer:
    return {kind: {**words, **({"init": init} if init else {})}}


def _given(*layers: Layer | None) -> list[Layer]:
    return [layer for layer in layers if layer is not None]


def mlp(draw: Draw, kind: str) -> list[Layer]:
    """plain: act(norm(Wx)); residual: x + the same; prenorm: x + W act(W norm(x)); postnorm."""
    depth = draw.depth(2, draw.sizes.mlp_depth // (2 if kind == "prenorm" else 1))
    width = draw.choose("width", draw.sizes.mlp)
    act, norm = draw.choose("act", ACTIVATIONS), draw.choose("norm", NORMS)
    if kind == "postnorm" and norm == "none":
        norm = draw.note("norm", "layer")
    init = draw.init()
    linear = _layer("Linear", {"out_features": width}, init)
    norm_layer = {"batch": "BatchNorm1d", "layer": "LayerNorm"}.get(norm)
    block = {
        "plain": lambda: _given(linear, norm_layer, act),
        "residual": lambda: [draw.residual(_given(linear, norm_layer, act), depth)],
        "prenorm": lambda: [draw.residual(_given(norm_layer, linear, act, linear), depth)],
        "postnorm": lambda: _given(draw.residual([linear, act], depth), norm_layer),
    }[kind]()
    ends = draw.ends(init)
    stem: Layer = {"Linear": {"out_features": width, **ends}}
    return [stem, _repeat(depth, block), {"Linear": {"out_features": 10, **ends}}]


def conv(draw: Draw) -> list[Layer]:
    """Convolutions on 4×4 pixels behind a stem of stride 2, plain or residual."""
    residual = draw.choose("residual", (True, False))
    depth = draw.depth(2, 8 if residual else draw.sizes.conv_depth)
    channels = draw.choose("width", draw.sizes.conv)
    act, norm = draw.choose("act", ACTIVATIONS), draw.choose("norm", NORMS)
    init = draw.init()
    ends = draw.ends(init)
    shape = {"out_channels": channels, "kernel_size": 3, "padding": 1}
    layer = _layer("Conv2d", shape, init)
    norms: dict[str, Layer] = {"batch": "BatchNorm2d", "layer": {"GroupNorm": {"num_groups": 1}}}
    norm_layer = norms.get(norm)
    if residual:
        block = [draw.residual(_given(norm_layer, act, layer, norm_layer, act, layer), depth)]
    else:
        block = _given(layer, norm_layer, act)
    return [
        {"Unflatten": {"dim": 1, "unflattened_size": [1, 8, 8]}},
        {"Conv2d": {**shape, "stride": 2, **ends}},
        _repeat(depth, block),
        "Flatten",
        {"Linear": {"out_features": 10, **ends}},
    ]


def transformer(draw: Draw) -> list[Layer]:
    """Encoder blocks over a digit's 8 rows of 8 pixels, with pre-norm, post-norm or none."""
    depth = draw.depth(1, draw.sizes.transformer_depth)
    width = draw.choose("width", draw.sizes.transformer)
    order = draw.choose("norm", ("pre", "pre", "post", "post", "none"))
    act = draw.choose("act", ACTIVATIONS)
    init = draw.init()
    ends = draw.ends(init)
    before, after = ("LayerNorm" if order == where else None for where in ("pre", "post"))
    attention = _layer("MultiheadAttention", {"num_heads": draw.sizes.heads}, init)
    wide = _layer("Linear", {"out_features": 2 * width}, init)
    narrow = _layer("Linear", {"out_features": width}, init)
    block = _given(
        draw.residual(_given(before, attention), depth),
        after,
        draw.residual(_given(before, wide, act, narrow), depth),
        after,
    )
    return [
        {"Unflatten": {"dim": 1, "unflattened_size": [8, 8]}},
        {"Linear": {"out_features": width, **ends}},
        _repeat(depth, block),
        *_given(before),
        "Flatten",
        {"Linear": {"out_features": 10, **ends}},
    ]


def recurrent(draw: Draw) -> list[Layer]:
    """Recurrent layers over a digit's 8 rows of 8 pixels, read at the last row or at all."""
    cell = draw.choose("act", ("RNN", "RNN", "GRU", "LSTM"))
    depth = draw.depth(1, 6 if cell == "RNN" else 3)
    width = draw.choose("width", draw.sizes.recurrent)
    norm, residual = draw.choose("norm", ("none", "layer")), draw.choose("residual", (True, False))
    init = draw.init()
    ends = draw.ends(init)
    last = draw.choose("read", ("last", "all"))
    layers = _given("LayerNorm" if norm == "layer" else None)
    layers.append(_layer(cell, {"hidden_size": width}, init))
    block = [draw.residual(layers, depth)] if residual else layers
    cut: Layer = {"ZeroPad2d": {"padding": [0, 0, -7, 0]}}
    return [
        {"Unflatten": {"dim": 1, "unflattened_size": [8, 8]}},
        {"Linear": {"out_features": width, **ends}},
        _repeat(depth, block),
        *_given(cut if last == "last" else None),
        "Flatten",
        {"Linear": {"out_features": 10, **ends}},
    ]


def resnet(draw: Draw) -> list[Layer]:
    """He et al.'s blocks on 4×4 pixels, before or after their activation, and a pooled head."""
    depth = draw.depth(2, draw.sizes.resnet_depth)
    channels = draw.choose("width", draw.sizes.conv)
    act = draw.choose("act", ("ReLU", "ReLU", "SiLU"))
    order = draw.choose("norm", ("post", "pre"))
    init = draw.init()
    ends = draw.ends(init)
    layer = _layer("Conv2d", {"out_channels": channels, "kernel_size": 3, "padding": 1}, init)
    if order == "post":
        inside: list[Layer] = [layer, "BatchNorm2d", act, layer, "BatchNorm2d"]
        block: list[Layer] = [draw.residual(inside, depth), act]
    else:
        block = [draw.residual(["BatchNorm2d", act, layer, "BatchNorm2d", act, layer], depth)]
    stem = {"out_channels": channels, "kernel_size": 3, "padding": 1, "stride": 2, **ends}
    return [
        {"Unflatten": {"dim": 1, "unflattened_size": [1, 8, 8]}},
        {"Conv2d": stem},
        "BatchNorm2d",
        act,
        _repeat(depth, block),
        {"AdaptiveAvgPool2d": {"output_size": 1}},
        "Flatten",
        {"Linear": {"out_features": 10, **ends}},
    ]


def _repeat(depth: int, block: list[Layer]) -> Layer:
    return {"repeat": {"times": depth, "layers": block}}


# Each kind, how to draw one, and how many of a hundred there are.
KINDS: dict[str, tuple[Callable[[Draw], list[Layer]], int]] = {
    "plain": (lambda draw: mlp(draw, "plain"), 28),
    "residual": (lambda draw: mlp(draw, "residual"), 14),
    "prenorm": (lambda draw: mlp(draw, "prenorm"), 12),
    "postnorm": (lambda draw: mlp(draw, "postnorm"), 8),
    "conv": (conv, 13),
    "transformer": (transformer, 13),
    "recurrent": (recurrent, 12),
    "resnet": (resnet, 10),
}


def sample(
    seed: int, index: int, kinds: tuple[str, ...], wild: bool, sizes: Sizes
) -> dict[str, Any]:
    """The network number ``index`` of ``seed``: its id, its config in words, and its spec."""
    random = Random(f"{seed}/{index}")
    draw = Draw(random, wild, sizes)
    kind = draw.note("kind", random.choices(kinds, [KINDS[kind][1] for kind in kinds])[0])
    layers = KINDS[kind][0](draw)
    spec = {"input": {"shape": [64]}, "layers": layers}
    return {"id": PER_SEED * seed + index, "config": draw.config, "spec": spec}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated")
    parser.add_argument("--wild", action="store_true")
    sizes = parser.add_mutually_exclusive_group()
    for name, value in {"--small": SMALL, "--deep": DEEP}.items():
        sizes.add_argument(name, dest="sizes", action="store_const", const=value, default=USUAL)
    arguments = parser.parse_args()
    kinds = tuple(arguments.kinds.split(","))
    for index in range(arguments.count):
        print(json.dumps(sample(arguments.seed, index, kinds, arguments.wild, arguments.sizes)))


if __name__ == "__main__":
    main()
