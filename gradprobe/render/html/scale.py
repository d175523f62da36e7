"""A reach → its place on the one logarithmic scale of a page, and its brightness there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gradprobe.render.canvas import HIGH, LOW

_LOWEST, _HIGHEST = -46.0, 39.0  # decades of a float32
_SHADES = 24  # from nothing to 1
_GROWN = 8  # from 1 to the top


class Tick(NamedTuple):
    """A label of the scale; ``at`` is from 0 (bottom) to 1."""

    at: float
    text: str


class Scale(NamedTuple):
    """What a page's bars, cells and curves span: log10 of the least and the greatest reach."""

    low: float = LOW
    high: float = HIGH

    def at(self, reach: float) -> float:
        """The place of a reach that is a number: 0 at the bottom or below, 1 at the top or above.

        Zero stands at the bottom.
        """
        height = math.log10(reach) if reach > 0 else self.low
        return min(1.0, max(0.0, (height - self.low) / (self.high - self.low)))

    def shade(self, reach: float | None) -> str:
        """The class of a cell: brighter up to 1 (``h24``), another colour above (``g1`` on)."""
        if reach is None:
            return "none"
        if not math.isfinite(reach):
            return "odd"
        one = self.at(1.0)
        place = self.at(reach)
        if place > one:
            return f"g{max(1, round((place - one) / (1 - one) * _GROWN))}"
        return f"h{round(place / one * _SHADES)}"

    @property
    def ticks(self) -> list[Tick]:
        """About six powers of ten, 1 among them."""
        step = max(1, math.ceil((self.high - self.low) / 6))
        step += step % 2 if step > 1 else 0
        first = math.ceil(self.low / step) * step
        decades = range(first, math.floor(self.high) + 1, step)
        return [Tick(self.at(10.0**d), "1" if d == 0 else f"1e{d}") for d in decades]


def scale_of(reaches: Iterable[float | None]) -> Scale:
    """1e-8 to 1e4 in every page, and wider where a reach lies beyond."""
    heights = [math.log10(r) for r in reaches if r and math.isfinite(r)]
    low = math.floor(max(_LOWEST, min([LOW, *heights])))
    return Scale(low, math.ceil(min(_HIGHEST, max([HIGH, *heights]))))


def curve(places: Sequence[tuple[float, float | None]]) -> str:
    """An SVG path through points in the unit square, drawn 100 by 100, with a gap at ``None``."""
    path, command = [], "M"
    for x, y in places:
        if y is None:
            command = "M"
            continue
        path.append(f"{command}{100 * x:.2f} {100 * (1 - y):.2f}")
        command = "L"
    return "".join(path)
