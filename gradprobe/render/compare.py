"""Several reports → their heat bars side by side, row against row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from gradprobe.measure.profile import RowProfile
from gradprobe.numbers import name, number, plural
from gradprobe.render.canvas import (
    BAD,
    FAINT,
    VERDICT_COLOURS,
    Style,
    fold,
    grid,
    heat_bar,
    paint,
    scale,
    with_gaps,
)
from gradprobe.verdict.report import Report

MOST_ROWS = 20
_LEAST_BAR, _MOST_BAR, _REACH = 8, 40, 8


def render_comparison(
    reports: Sequence[Report], style: Style | None = None, *, everything: bool = False
) -> str:
    """The reports side by side; as many at a time as the width holds."""
    style = style or Style()
    aligned = align([[r for r in report.rows if r.level == 0] for report in reports])
    names = [next(row.name for row in line if row is not None) for line in aligned]
    name_width = min(
        max(len("row"), *(cell_len(style.safe(n)) for n in names)), max(8, style.width // 5)
    )
    most = len(names) if everything else MOST_ROWS
    named = {finding.row for report in reports for finding in report.findings}
    telling = [index for index, row in enumerate(names) if row in named]
    shown = fold(len(names), telling, most)
    footers = [str(read(report)) for report in reports for read in FOOTERS]
    least = max(_LEAST_BAR, *map(len, footers))  # the bars stand above the footers
    each = least + 2 + _REACH + 2
    at_once = max(1, (style.width - name_width - 2) // each)
    parts: list[RenderableType] = []
    for start in range(0, len(reports), at_once):
        group = range(start, min(start + at_once, len(reports)))
        room = (style.width - name_width - 2) // len(group) - (_REACH + 4)
        bar_width = max(least, min(_MOST_BAR, room))
        if parts:
            parts.append(Text(""))
        lines = [[line[i] for i in group] for line in aligned]
        chosen = [reports[i] for i in group]
        labels = [name(style.safe(row), name_width) for row in names]
        parts.append(_table(chosen, lines, labels, shown, bar_width, style))
    return paint(parts, style)


def _table(
    reports: list[Report],
    lines: list[list[RowProfile | None]],
    labels: list[str],
    shown: list[int],
    bar_width: int,
    style: Style,
) -> RenderableType:
    """Two columns a report, its bars and its reaches; of the lines those that are shown."""
    headers: list[tuple[str | Text, str]] = [("", "left")]
    for report in reports:
        target = Text(name(style.safe(report.target), bar_width))
        headers += [(target, "left"), (" " * _REACH, "right")]
    table = grid(headers)
    table.add_row("row", *[scale(bar_width), "reach"] * len(reports), style="bold")
    for gap, index in with_gaps(shown):
        if gap:
            blanks = [""] * (2 * len(reports) - 1)
            table.add_row("⋮", plural(gap, "row"), *blanks, style=FAINT)
        cells = [Text(labels[index])]
        for report, row in zip(reports, lines[index], strict=True):
            reach = report.profile.reach_of(row) if row else None
            cells.append(heat_bar(reach, bar_width) if row else Text(""))
            cells.append(Text(number(reach) if row else ""))
        table.add_row(*cells)
    table.add_row()
    for read in FOOTERS:
        table.add_row("", *[cell for report in reports for cell in (read(report), Text(""))])
    return table


def _verdict(report: Report) -> Text:
    return Text(str(report.verdict), style=f"bold {VERDICT_COLOURS.get(report.verdict, BAD)}")


def _factor(report: Report) -> Text:
    decay = report.profile.decay
    return Text(f"×{number(decay)} per row" if decay and report.profile.steps > 1 else "")


def _half_life(report: Report) -> Text:
    half_life = report.profile.half_life
    if half_life is None or not math.isfinite(half_life) or abs(half_life) >= 1000:
        return Text("")
    return Text(f"{'half' if half_life > 0 else 'twice'} in {number(abs(half_life))} rows")


# What stands below each column of bars.
FOOTERS = (_verdict, _factor, _half_life)


def align(columns: list[list[RowProfile]]) -> list[list[RowProfile | None]]:
    """By name where one network's rows hold all the others', else by position."""
    longest = max(columns, key=len)
    names = {row.name for row in longest}
    if all(row.name in names for column in columns for row in column):
        by_name = [{row.name: row for row in column} for column in columns]
        return [[rows.get(row.name) for rows in by_name] for row in longest]
    return [list(line) for line in zip_longest(*columns)]
