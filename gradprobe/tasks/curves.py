"""The values of a sweep, and what curve fits the reach as a stack deepens. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gradprobe.verdict.report import Verdict

_FLAT = 0.1  # decades over the whole sweep


class Point(NamedTuple):
    """One network of a sweep: its value on each axis, its reach and its verdict."""

    target: str
    at: tuple[str, ...]
    depth: int
    reach: float | None
    verdict: Verdict
    theory: float | None = None  # the reach that theory predicts


@dataclass(frozen=True, slots=True)
class Sweep:
    """Several targets over one or two axes. ``points`` are ordered by target, then axis by axis."""

    targets: tuple[str, ...]
    axes: tuple[tuple[str, tuple[str, ...]], ...]  # (name, values as text)
    points: tuple[Point, ...]
    theory: bool = False  # whether its points hold a predicted reach
    # The gain at which theory sees the edge of chaos, by target and place on the other axis.
    edges: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def over_depth(self) -> bool:
        """Whether its one axis is how deep the networks are, so that a curve over it means that."""
        (name, values), *more = self.axes
        deep = any(word in name.lower() for word in ("depth", "layer", "block"))
        return not more and deep and all(value.isdecimal() and int(value) for value in values)

    def curve(self, target: str) -> list[Point]:
        """The points of one target, in the order of the axes."""
        return [point for point in self.points if point.target == target]


class Fit(NamedTuple):
    """How the reach changes with depth: ``exponential`` by ``factor`` a block, ``polynomial`` as
    depth ** ``power``, ``flat``, or ``none`` where fewer than two depths have a reach above 0.
    """

    kind: str
    factor: float | None = None
    power: float | None = None


def fit(points: Sequence[Point]) -> Fit:
    """The better of two least-squares lines: log reach over depth, or over log depth."""
    pairs = [(p.depth, math.log10(p.reach)) for p in points if p.reach and math.isfinite(p.reach)]
    if len(pairs) < 2:
        return Fit("none")
    depths = [float(depth) for depth, _ in pairs]
    heights = [height for _, height in pairs]
    slope, exponential = _line(depths, heights)
    factor = 10**slope
    if max(heights) - min(heights) < _FLAT:
        return Fit("flat", factor, 0.0)
    if len(pairs) == 2:
        return Fit("exponential", factor)
    power, polynomial = _line([math.log10(depth) for depth in depths], heights)
    if polynomial < exponential:
        return Fit("polynomial", None, power)
    return Fit("exponential", factor)


def greatest_healthy(points: Sequence[Point]) -> int | None:
    """The greatest depth up to which every depth of the sweep was healthy."""
    best = None
    for point in sorted(points, key=lambda p: p.depth):
        if point.verdict is not Verdict.HEALTHY:
            break
        best = point.depth
    return best


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and residual sum of squares of the least-squares line."""
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    spread = math.fsum((a - mean_x) ** 2 for a in x)
    if spread == 0:
        return 0.0, math.inf
    slope = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = math.fsum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return slope, rest
