"""``Sweep`` → its log-log plot: reach over depth, a mark a target."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from rich.text import Text

from gradprobe.numbers import name
from gradprobe.render.canvas import FAINT, Style, band_colour, wrapped
from gradprobe.tasks.curves import Point, Sweep

_PLOT_ROWS = 13
_MARKS = "ox+*sd^v"


class _Frame(NamedTuple):
    """What the plot spans: log10 of the depth, and whole decades of the reach."""

    width: int
    left: float
    right: float
    low: int
    high: int

    def line(self, height: float) -> int:
        """Where a log10 of a reach stands, from above; at the edge where it is beyond."""
        ratio = (self.high - max(self.low, min(self.high, height))) / (self.high - self.low)
        return round(ratio * (_PLOT_ROWS - 1))

    def column(self, depth: int) -> int:
        span = self.right - self.left
        ratio = (math.log10(depth) - self.left) / span if span > 0 else 0.0
        return round(ratio * (self.width - 1))


def plot(sweep: Sweep, style: Style) -> list[Text]:
    """Reach over depth, both logarithmic; a point below the axis is drawn on its floor."""
    depths = [int(value) for value in sweep.axes[0][1]]
    heights = [math.log10(p.reach) for p in sweep.points if p.reach and math.isfinite(p.reach)]
    frame = _Frame(
        width=min(64, style.width - 12),
        left=math.log10(min(depths)),
        right=math.log10(max(depths)),
        low=math.floor(max(-16.0, min([-1.0, *heights]))),
        high=math.ceil(min(16.0, max([1.0, *heights]))),
    )
    labels = {0: f"1e{frame.high}", frame.line(0.0): "1", _PLOT_ROWS - 1: f"1e{frame.low}"}
    lines = []
    for index, cells in enumerate(_drawn(sweep, frame)):
        line = Text(f"{labels.get(index, ''):>6} │")
        for character, colour in cells:
            line.append(character, style=colour or None)
        lines.append(line)
    deepest = str(max(depths))
    axis = f"{min(depths)}".ljust(frame.width - len(deepest)) + deepest
    return [*lines, Text(" " * 8 + axis), *_legend(sweep, style)]


def _drawn(sweep: Sweep, frame: _Frame) -> list[list[tuple[str, str]]]:
    """The cells, line by line, each a character and its colour; the first target is on top."""
    cells: list[list[tuple[str, str]]] = [[(" ", "")] * frame.width for _ in range(_PLOT_ROWS)]
    cells[frame.line(0.0)] = [("·", FAINT)] * frame.width
    span, last = frame.right - frame.left, frame.width - 1
    across = [10 ** (frame.left + span * index / last) for index in range(frame.width)]
    for target in sweep.targets:
        for column, height in enumerate(_between(sweep.curve(target), across)):
            if height is not None and height >= frame.low:
                cells[frame.line(height)][column] = ("-", FAINT)
    for target in reversed(sweep.targets):
        for point in sweep.curve(target):
            if point.reach is None or math.isnan(point.reach):
                continue
            height = math.log10(point.reach) if point.reach > 0 else -math.inf
            mark = (_mark(sweep, target), band_colour(point.reach))
            cells[frame.line(height)][frame.column(point.depth)] = mark
    return cells


def _legend(sweep: Sweep, style: Style) -> list[Text]:
    marks = [f"{_mark(sweep, t)}\u00a0{name(style.safe(t), 30)}" for t in sweep.targets]
    marks += ["-\u00a0theory"] if sweep.theory else []
    story = wrapped("   ".join(["reach over depth, both log", *marks]), style, 8)
    return [Text(line.replace("\u00a0", " ")) for line in story]


def _between(curve: list[Point], depths: list[float]) -> list[float | None]:
    """log10 of theory's reach at ``depths``; exponential in between, as it is at a fixed point."""
    points = sorted((p.depth, math.log10(p.theory)) for p in curve if p.theory)
    heights: list[float | None] = []
    for depth in depths:
        pairs = (pair for pair in pairwise(points) if pair[0][0] <= depth <= pair[1][0])
        (a, low), (b, high) = next(pairs, ((0, math.nan), (1, math.nan)))
        height = low + (high - low) * (depth - a) / (b - a)
        heights.append(None if math.isnan(height) else height)
    return heights


def _mark(sweep: Sweep, target: str) -> str:
    return _MARKS[sweep.targets.index(target) % len(_MARKS)]
