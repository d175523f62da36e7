"""``Sweep`` → its log-log plot: reach over depth, a mark a target."""

from __future__ import annotations

import math
from itertools import pairwise

from rich.text import Text

from gradprobe.numbers import name
from gradprobe.render.canvas import (
    FAINT,
    Style,
    band_colour,
    wrapped,
)
from gradprobe.tasks.curves import Point, Sweep

_PLOT_ROWS = 13
_MARKS = "ox+*sd^v"


def plot(sweep: Sweep, style: Style) -> list[Text]:
    """Reach over depth, both logarithmic; a point below the axis is drawn on its floor."""
    width = min(64, style.width - 12)
    depths = [int(value) for value in sweep.axes[0][1]]
    left, right = math.log10(min(depths)), math.log10(max(depths))
    heights = [math.log10(p.reach) for p in sweep.points if p.reach and math.isfinite(p.reach)]
    low = max(-16.0, min([-1.0, *heights]))
    high = min(16.0, max([1.0, *heights]))
    low, high = math.floor(low), math.ceil(high)
    canvas: list[list[tuple[str, str]]] = [[(" ", "")] * width for _ in range(_PLOT_ROWS)]

    def place(height: float) -> int:
        ratio = (high - max(low, min(high, height))) / (high - low)
        return round(ratio * (_PLOT_ROWS - 1))

    one = place(0.0)
    canvas[one] = [("·", FAINT)] * width
    across = [10 ** (left + (right - left) * i / (width - 1)) for i in range(width)]
    for target in sweep.targets:
        for column, height in enumerate(_between(sweep.curve(target), across)):
            if height is not None and height >= low:
                canvas[place(height)][column] = ("-", FAINT)
    for target in reversed(sweep.targets):
        mark = _mark(sweep, target)
        for point in sweep.curve(target):
            if point.reach is None or math.isnan(point.reach):
                continue
            height = math.log10(point.reach) if point.reach > 0 else -math.inf
            ratio = (math.log10(point.depth) - left) / (right - left) if right > left else 0.0
            canvas[place(height)][round(ratio * (width - 1))] = (mark, band_colour(point.reach))
    lines = []
    labels = {0: f"1e{high}", one: "1", _PLOT_ROWS - 1: f"1e{low}"}
    for i, cells in enumerate(canvas):
        line = Text(f"{labels.get(i, ''):>6} │")
        for character, colour in cells:
            line.append(character, style=colour or None)
        lines.append(line)
    axis = f"{min(depths)}".ljust(width - len(str(max(depths)))) + f"{max(depths)}"
    legend = [f"{_mark(sweep, t)}\u00a0{name(style.safe(t), 30)}" for t in sweep.targets]
    legend += ["-\u00a0theory"] if sweep.theory else []
    story = wrapped("   ".join(["reach over depth, both log", *legend]), style, 8)
    told = [Text(line.replace("\u00a0", " ")) for line in story]
    return [*lines, Text(" " * 8 + axis), *told]


def _between(curve: list[Point], depths: list[float]) -> list[float | None]:
    """log10 of theory's reach at ``depths``; exponential in between, as it is at a fixed point."""
    known = sorted((p.depth, math.log10(p.theory)) for p in curve if p.theory)
    heights: list[float | None] = []
    for depth in depths:
        pairs = (pair for pair in pairwise(known) if pair[0][0] <= depth <= pair[1][0])
        (a, low), (b, high) = next(pairs, ((0, math.nan), (1, math.nan)))
        height = low + (high - low) * (depth - a) / (b - a)
        heights.append(None if math.isnan(height) else height)
    return heights


def _mark(sweep: Sweep, target: str) -> str:
    return _MARKS[sweep.targets.index(target) % len(_MARKS)]
