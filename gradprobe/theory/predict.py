"""``NetworkSpec`` → what mean-field theory says about each row, without building anything.

The moments of the signal are carried forward, row by row and at finite depth (``mean_field.py`` has
the formulas), and each row's factor of the gradient norm follows from them. Where a layer has no
closed form the rows from there on have a reason in place of a factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from gradprobe.spec.network import LayerSpec, NetworkSpec
from gradprobe.spec.options import DEFAULT_BATCH_SIZE
from gradprobe.theory.moments import Gain, Moments, Silent, restarted
from gradprobe.theory.prediction import RowPrediction
from gradprobe.theory.walk import Walker

_ASTRAY = 0.5  # a tangent with a smaller share along the signal is given up


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
    walker = Walker(spec)
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
