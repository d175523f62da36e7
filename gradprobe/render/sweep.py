"""``Sweep`` → a table and a log-log plot over one axis, or a heat map over two."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.console import RenderableType
from rich.text import Text

from gradprobe.numbers import name, number
from gradprobe.render.canvas import (
    BAD,
    VERDICT_COLOURS,
    Style,
    band_colour,
    grid,
    heat_bar,
    paint,
    scale,
    wrapped,
)
from gradprobe.render.json import written
from gradprobe.render.plot import plot
from gradprobe.tasks.curves import Fit, Point, Sweep, fit, greatest_healthy
from gradprobe.verdict.report import Verdict

_THEORY = 10  # cells of the column of predicted reaches


def render_sweep(sweep: Sweep, style: Style | None = None) -> str:
    """One axis: a table, a plot and what was fitted. Two: a heat map for each target."""
    style = style or Style()
    if len(sweep.axes) == 2:
        parts: list[RenderableType] = []
        for target in sweep.targets:
            parts += [*_heat_map(sweep, target, style), Text("")]
        return paint(parts[:-1], style)
    label_width = _label_width(sweep)
    at_once = max(1, (style.width - label_width) // (_THEORY + 12 if sweep.theory else 12))
    parts = []
    for start in range(0, len(sweep.targets), at_once):
        parts += [_table(sweep, sweep.targets[start : start + at_once], style), Text("")]
    parts.pop()
    if sweep.axes[0][0] == "depth" and len(sweep.axes[0][1]) > 1:
        parts += [Text(""), *plot(sweep, style), Text(""), _fits(sweep, style)]
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
    for target in targets:
        headers.append((Text(name(style.safe(target), 10)), "right"))
        if sweep.theory:
            headers.append(("theory", "right"))
        if bar_width >= 6:
            headers.append((scale(bar_width) if bar_width >= 12 else "", "left"))
    table = grid(headers)
    curves = [sweep.curve(target) for target in targets]
    for i, value in enumerate(values):
        cells = [Text(name(style.safe(value), label_width))]
        for curve in curves:
            reach = curve[i].reach
            cells.append(Text(number(reach), style=band_colour(reach)))
            if sweep.theory:
                cells.append(Text(number(curve[i].theory)))
            if bar_width >= 6:
                cells.append(heat_bar(reach, bar_width))
        table.add_row(*cells)
    return table


def _fits(sweep: Sweep, style: Style) -> RenderableType:
    table = grid([("target", "left"), ("healthy up to", "right"), ("reach over depth", "left")])
    for target in sweep.targets:
        curve = sweep.curve(target)
        deepest = greatest_healthy(curve)
        table.add_row(
            Text(name(style.safe(target), 30)),
            Text("-" if deepest is None else f"{deepest:,}"),
            Text(_fit_story(fit(curve))),
        )
    return table


def _fit_story(curve: Fit) -> str:
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
        lines += [Text(line) for line in wrapped(_edge_story(sweep, target), style, 0)]
    return lines


def _edge_story(sweep: Sweep, target: str) -> str:
    edges = sorted({edge for (of, _), edge in sweep.edges.items() if of == target})
    if not edges:
        return "theory: no edge of chaos on this map"
    gains = " to ".join(dict.fromkeys(number(edge) for edge in (edges[0], edges[-1])))
    return f"│ theory's edge of chaos, gain {gains}: the gradient decays left of it, grows right"


def _cell(point: Point, width: int) -> tuple[str, str]:
    reach = point.reach
    if reach is None or not math.isfinite(reach):
        return f"{'NaN' if point.verdict is Verdict.NON_FINITE else '-':>{width}}", BAD
    text = "-inf" if reach == 0 else f"{math.log10(reach):.1f}"
    return f"{text:>{width}}", VERDICT_COLOURS.get(point.verdict, BAD)


def render_sweep_json(sweep: Sweep, versions: Mapping[str, str]) -> str:
    """The same as one JSON object."""
    from gradprobe.tasks.documents.sweep import SweepDocument

    return written(SweepDocument.of(sweep, versions))
