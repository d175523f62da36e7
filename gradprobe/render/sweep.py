"""``Sweep`` → a table and a log-log plot over one axis, or a heat map over two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from rich.console import RenderableType
from rich.text import Text

from gradprobe.numbers import name, number
from gradprobe.render.canvas import (
    BAD,
    FAINT,
    NARROW,
    VERDICT_COLOURS,
    Style,
    band_colour,
    floor_of,
    grid,
    heat_bar,
    paint,
    scale,
    wrapped,
)
from gradprobe.render.json import written
from gradprobe.tasks.curves import Fit, Point, Sweep, fit, greatest_healthy
from gradprobe.verdict.report import Verdict

_THEORY = 10  # cells of the column of predicted reaches
_LEAST = 20  # cells of a target with its bar
_PLOT_ROWS = 13
_MARKS = "ox+*sd^v"


def render_sweep(sweep: Sweep, style: Style | None = None) -> str:
    """One axis: a table, a plot and what was fitted. Two: a heat map for each target."""
    style = style or Style()
    if len(sweep.axes) == 2:
        parts: list[RenderableType] = []
        for target in sweep.targets:
            parts += [*_heat_map(sweep, target, style), Text("")]
        return paint(parts[:-1], style)
    label_width = _label_width(sweep)
    least = _THEORY + _LEAST if sweep.theory else _LEAST
    at_once = max(1, (style.width - label_width) // least)
    parts = []
    for start in range(0, len(sweep.targets), at_once):
        parts += [_table(sweep, sweep.targets[start : start + at_once], style), Text("")]
    parts.pop()
    if sweep.over_depth and len(sweep.axes[0][1]) > 1:
        parts += [Text(""), *_plot(sweep, style), Text(""), *_fits(sweep, style)]
    return paint(parts, style)


def _label_width(sweep: Sweep) -> int:
    axis, values = sweep.axes[0]
    return min(24, max(len(axis), *(len(value) for value in values)))


def _table(sweep: Sweep, targets: tuple[str, ...], style: Style) -> RenderableType:
    axis, values = sweep.axes[0]
    label_width = _label_width(sweep)
    each = (style.width - label_width) // len(targets) - (_THEORY if sweep.theory else 0)
    bar_width = max(0, min(30, each - 14))
    headers: list[tuple[str | Text, str]] = [(axis, "right")]
    curves = [sweep.curve(target) for target in targets]
    floors = [floor_of(point.reach for point in curve) for curve in curves]
    for target, low in zip(targets, floors, strict=True):
        headers.append((Text(name(style.safe(target), 10)), "right"))
        if sweep.theory:
            headers.append(("theory", "right"))
        if bar_width >= 6:
            headers.append((scale(bar_width, low), "left"))
    table = grid(headers)
    for i, value in enumerate(values):
        cells = [Text(name(style.safe(value), label_width))]
        for curve, low in zip(curves, floors, strict=True):
            reach = curve[i].reach
            cells.append(Text(number(reach), style=band_colour(reach)))
            if sweep.theory:
                cells.append(Text(number(curve[i].theory)))
            if bar_width >= 6:
                cells.append(heat_bar(reach, bar_width, low))
        table.add_row(*cells)
    return table


# ---- the plot


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


def _plot(sweep: Sweep, style: Style) -> list[Text]:
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
        for column, height in enumerate(theory_between(sweep.curve(target), across)):
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


def theory_between(curve: list[Point], depths: list[float]) -> list[float | None]:
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


# ---- what was fitted, and the heat map


def _fits(sweep: Sweep, style: Style) -> list[RenderableType]:
    """A table of what was fitted to each target; where it is narrow, a paragraph for each."""
    table = grid([("target", "left"), ("healthy up to", "right"), ("reach over depth", "left")])
    paragraphs: list[RenderableType] = []
    for target in sweep.targets:
        curve, label = sweep.curve(target), style.safe(target)
        depth = greatest_healthy(curve)
        deepest, story = "-" if depth is None else f"{depth:,}", fit_story(fit(curve))
        table.add_row(Text(name(label, 30)), Text(deepest), Text(story))
        healthy = f", healthy up to {deepest}" if depth else ""
        paragraphs += map(Text, wrapped(f"{name(label, 30)}: {story}{healthy}", style, 0))
    return paragraphs if style.width < NARROW else [table]


def fit_story(curve: Fit) -> str:
    return {
        "exponential": f"exponential, ×{number(curve.factor)} per block",
        "polynomial": f"polynomial, depth^{number(curve.power)}",
        "flat": "flat",
        "none": "too few depths with a reach above 0",
    }[curve.kind]


def _heat_map(sweep: Sweep, target: str, style: Style) -> list[RenderableType]:
    """One cell a network: log10 of its reach, coloured by its band."""
    (down, rows), (across, columns) = sweep.axes
    points = {point.at: point for point in sweep.curve(target)}
    label_width = min(20, max(len(down), *(len(value) for value in rows)))
    room = (style.width - label_width - 2) // len(columns)
    cell = max(6, min(8, room))
    fit_columns = columns[: max(1, (style.width - label_width - 2) // cell)]
    head = Text(f"{target}: log10 of the reach, {down} down, {across} across", style="bold")
    labels = (f"{name(style.safe(value), cell - 1):>{cell}}" for value in fit_columns)
    lines: list[RenderableType] = [head, Text(" " * (label_width + 2) + "".join(labels))]
    for row in rows:
        line = Text(f"{name(style.safe(row), label_width):>{label_width}}  ")
        edge = sweep.edges.get((target, row))
        for column in fit_columns:
            text, colour = _cell(points[(row, column)], cell)
            if edge is not None and float(column) >= edge:
                edge, text = None, text.replace(" ", "│", 1)
            line.append(text, colour)
        lines.append(line)
    if len(fit_columns) < len(columns):
        lines.append(Text(f"{len(columns) - len(fit_columns)} columns more: use a wider terminal"))
    if sweep.theory:
        lines += [Text(line) for line in wrapped(edge_story(sweep, target), style, 0)]
    return lines


def edge_story(sweep: Sweep, target: str) -> str:
    edges = sorted({edge for (of, _), edge in sweep.edges.items() if of == target})
    if not edges:
        return "theory: no edge of chaos on this map"
    gains = " to ".join(dict.fromkeys(number(edge) for edge in (edges[0], edges[-1])))
    return f"│ theory's edge of chaos, gain {gains}: the gradient decays left of it, grows right"


def _cell(point: Point, width: int) -> tuple[str, str]:
    reach = point.reach
    if reach is None or not math.isfinite(reach):
        return f"{'NaN' if point.verdict is Verdict.NON_FINITE else '-':>{width}}", BAD
    text = "-inf" if reach == 0 else f"{math.log10(reach):z.1f}"  # z takes the sign off -0.0
    return f"{text:>{width}}", VERDICT_COLOURS.get(point.verdict, BAD)


def render_sweep_json(sweep: Sweep, versions: Mapping[str, str]) -> str:
    """The same as one JSON object."""
    from gradprobe.tasks.documents.commands import SweepDocument

    return written(SweepDocument.of(sweep, versions))
