"""``NetworkSpec`` → what mean-field theory says about each row, without building anything.

The moments of the signal are carried forward, row by row and at finite depth (``mean_field.py`` has
the formulas), and each row's factor of the gradient norm follows from them. Where a layer has no
closed form the rows from there on have a reason in place of a factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from gradprobe.spec.layers import Trait, kinds
from gradprobe.spec.network import InitSpec, LayerSpec, NetworkSpec, walk
from gradprobe.spec.options import DEFAULT_BATCH_SIZE
from gradprobe.theory import mean_field as theory
from gradprobe.theory.activations import ACTIVATIONS
from gradprobe.theory.leaves import RULES, Leaf
from gradprobe.theory.moments import Gain, Moments, RowPrediction, Silent, Tangent, restarted

_ASTRAY = 0.5  # a tangent with a smaller share along the signal is given up
_WEIGHTED = kinds(Trait.WEIGHTED)
_DECISIVE = ACTIVATIONS.keys() - {"Identity"} | (kinds(Trait.NORM) & RULES.keys())


def predict(
    spec: NetworkSpec, batch_size: int | None = None, moments: Moments | None = None
) -> tuple[RowPrediction, ...]:
    """A prediction for each row that a probe of ``spec`` reports, in the same order and by name.

    Args:
        spec: Linear or convolution layers (σ_w² = fan_in · Var(w)), activations that act element
            by element, LayerNorm, RMSNorm, BatchNorm, dropout, flatten, residual and repeat.
        batch_size: what BatchNorm sees; default the spec's.
        moments: of the input; default independent standard normal numbers.

    The deviation follows Hanin & Nica 2018 (arXiv 1812.05994): each layer of n units multiplies the
    squared norm by a random factor of relative variance (3κ - 1) / n, κ = E[φ'⁴] / E[φ'²]², 5/n for
    ReLU, where all inputs look alike; less where they do not. ``benchmarks/theory.py`` measures it.
    """
    size = batch_size or spec.input.batch_size or DEFAULT_BATCH_SIZE
    walker = _Walker(spec)
    behind: str | None = None
    if spec.input.tokens is not None:
        behind = "its input is tokens"
    current = restarted(moments or Moments((size, *spec.input.shape)))
    rows: list[RowPrediction] = []
    walked: list[_Walked] = []
    for name, layers in _rows(spec.layers):
        if behind is not None:
            rows.append(RowPrediction(name, None, 0.0, behind))
            continue
        try:
            gain, current = walker.chain(layers, current)
        except Silent as silent:
            rows.append(RowPrediction(name, None, 0.0, str(silent)))
            behind = f"behind row {name}: {silent}"
            continue
        fresh = current.along < _ASTRAY
        current = restarted(current) if fresh else current
        numbers = math.prod(current.shape[1:])
        walked.append(_Walked(name, gain, numbers, numbers * current.tangent.square, fresh))
    return (*_corrected(walked), *rows)


class _Walked(NamedTuple):
    """A row with a gain, the numbers in its output, and the tangent's squared norm there."""

    name: str
    gain: Gain
    size: int
    tangent: float
    fresh: bool  # the tangent was started anew


def _corrected(walked: list[_Walked]) -> list[RowPrediction]:
    """The rows' factors, with what comes back along the signal's own direction.

    A gradient of random direction has 1/n of its square along J x̂, and x̂ gets |J x̂|² of that: in
    a residual stack whose branch has a mean the signal grows faster than the gradient of mean-field
    theory, and after some ten blocks that one direction outweighs the n - 1 others.
    """
    factors: list[RowPrediction] = []
    bulk = excess_above = 0.0  # ln of the squared reach without; ln of the rest, at the row above
    same = True  # whether the tangent of this row is the one that arrives at the top
    for row, below in zip(reversed(walked), [*walked[-2::-1], None], strict=False):
        chi, deviation = row.gain.chi, math.sqrt(row.gain.variance) / 2  # of the norm: a half
        same = same and not row.fresh
        factor = math.sqrt(chi)
        if chi <= 0:
            same = False
        elif below is not None and same and below.tangent > 0:
            bulk += math.log(chi)
            top = walked[-1]
            share = math.log(top.tangent / below.tangent / top.size) - bulk
            excess = math.log1p(max(0.0, math.exp(min(share, 700.0)) - 1 / below.size))
            factor *= math.exp((excess - excess_above) / 2)
            excess_above = excess
        factors.append(RowPrediction(row.name, factor, deviation))
    return factors[::-1]


def _rows(layers: tuple[LayerSpec, ...]) -> Iterator[tuple[str, tuple[LayerSpec, ...]]]:
    """Names and layers of the rows, as ``build`` makes them."""
    for index, layer in enumerate(layers):
        name = layer.name or str(index)
        if layer.kind == "repeat":
            for iteration in range(layer.times):
                yield f"{name}.{iteration}", layer.branches[0]
        else:
            yield name, (layer,)


class _Walker:
    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.correlated = any(layer.kind.startswith("BatchNorm") for layer, _ in walk(spec.layers))

    def chain(self, layers: tuple[LayerSpec, ...], moments: Moments) -> tuple[Gain, Moments]:
        """The gain of ``layers`` one after another, and the moments behind them.

        Raises:
            Silent: theory has nothing to say about one of them.
        """
        whole = Gain()
        for layer in layers:
            gain, moments = self._layer(layer, moments)
            whole = whole.then(gain)
            if not (math.isfinite(moments.square) and math.isfinite(whole.chi)):
                raise Silent("the signal grows beyond all numbers")
        return whole, moments

    def _layer(self, layer: LayerSpec, moments: Moments) -> tuple[Gain, Moments]:
        if layer.kind in ("repeat", "sequential"):
            return self.chain(layer.branches[0] * layer.times, moments)
        if layer.kind == "residual":
            return self._residual(layer, moments)
        rule = RULES.get(layer.kind)
        if rule is None:
            raise Silent(f"{layer.kind} has no closed form here")
        inits = {**self.spec.init.get(layer.kind, {}), **layer.init}
        return rule(Leaf(layer, inits, self.correlated), moments)

    def _residual(self, layer: LayerSpec, moments: Moments) -> tuple[Gain, Moments]:
        """Squares and variances of the two ways; their cross term vanishes between networks, and
        within one it is 2 s b δᵀJδ, of relative variance 4 s² b² χ_S χ_F / n."""
        itself = Leaf(layer, {}, self.correlated)
        s, b = itself.number("skip_scale", 1.0), itself.number("branch_scale", 1.0)
        skip, branch = Gain(), Gain(0.0, mixes=True)
        skipped = moments
        if len(layer.branches) > 1:
            skip, skipped = self.chain(layer.branches[1], moments)
        nothing = Tangent(0.0, 0.0, 0.0)
        moved = skipped._replace(mean=0.0, square=0.0, product=0.0, tangent=nothing)  # F = 0
        if not layer.arguments.get("zero_init"):
            branch, moved = self.chain(layer.branches[0], moments)
        if not (skip.mixes or branch.mixes):
            raise Silent("neither way through the residual holds random weights")
        chi = theory.residual_chi(branch.chi, s, b, skip.chi)
        ways = (s * s * skip.chi, b * b * branch.chi)
        width = max(1, min(skipped.width, moments.width))
        spread = ways[0] ** 2 * skip.variance + ways[1] ** 2 * branch.variance
        spread += 4 * ways[0] * ways[1] / width
        return Gain(chi, spread / chi**2 if chi else 0.0, True), _sum(skipped, s, moved, b)


def _sum(skip: Moments, s: float, branch: Moments, b: float) -> Moments:
    """The moments of s · skip + b · branch; the branch's units are independent of the skip's."""
    cross = 2 * s * b * skip.mean * branch.mean
    return branch._replace(
        mean=s * skip.mean + b * branch.mean,
        square=s * s * skip.square + b * b * branch.square + cross,
        product=s * s * skip.product + b * b * branch.product + cross,
        tangent=Tangent(
            s * s * skip.tangent.square
            + b * b * branch.tangent.square
            + 2 * s * b * skip.tangent.mean * branch.tangent.mean,
            s * s * skip.tangent.along
            + b * b * branch.tangent.along
            + s * b * (skip.mean * branch.tangent.mean + branch.mean * skip.tangent.mean),
            s * skip.tangent.mean + b * branch.tangent.mean,
        ),
        gaussian=skip.gaussian and branch.gaussian,
    )


def about(spec: NetworkSpec) -> str:
    """``ReLU, BatchNorm1d, torch's default init``: what decides over the factors."""
    layers = [layer for layer, _ in walk(spec.layers)]
    decisive = [k for k in dict.fromkeys(layer.kind for layer in layers) if k in _DECISIVE]
    weighted = [layer for layer in layers if layer.kind in _WEIGHTED]
    inits = {_init_words(spec, layer) for layer in weighted}
    return ", ".join([*decisive, *(inits if len(inits) == 1 else ["several inits"])])


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
