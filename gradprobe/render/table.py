"""Report → the table of its rows, as many columns as the width holds, with a heat bar each."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from gradprobe.measure.profile import PrecisionProfile, RowProfile, RowStatus
from gradprobe.numbers import fraction, kind, name, number, plural
from gradprobe.render.canvas import (
    BAD,
    ENDLESS,
    FAINT,
    NARROW,
    Style,
    fold,
    grid,
    heat_bar,
    scale,
    with_gaps,
)
from gradprobe.render.verdict import training_lines
from gradprobe.verdict.report import Report, Severity

MOST_ROWS = 24
_BAR = (14, 40)  # cells, at least and at most
_LEAST_BAR = 6  # where names need the room; fewer are no bar


class Column(NamedTuple):
    """One column of numbers: its header, its width, and how it reads a row.

    ``words``: those by which a finding, or what weighs against a network, speaks of it.
    """

    header: str
    width: int
    read: Callable[[RowProfile], str]
    words: tuple[str, ...] = ()


# In the order in which they find room; `reach` and the bar always do.
COLUMNS = (
    Column(
        "gradient", 8, lambda row: number(row.gradient_norm), ("gradient passes", "gradient holds")
    ),
    Column("output", 8, lambda row: number(row.activation_rms), ("activations grow",)),
    Column("zeros", 5, lambda row: fraction(row.zero_fraction), ("outputs are all zero",)),
    Column("inputs", 7, lambda row: number(row.input_dependence), ("inputs apart", "are alike")),
    Column("∂weights", 8, lambda row: number(row.weight_gradient_norm), ("zero gradient:",)),
    Column(
        "weights",
        8,
        lambda row: number(row.weight_norm),
        ("all-zero weights", "constant weights", "parameters hold", "zero at the start"),
    ),
    Column("parameters", 11, lambda row: f"{row.size:,}"),
)
# With --blocks, before the others.
JACOBIAN_COLUMNS = (
    Column("highway", 7, lambda row: number(row.jacobian and row.jacobian.highway.value)),
    Column("branch", 7, lambda row: number(row.jacobian and row.jacobian.branch.value)),
    Column("gain", 7, lambda row: number(row.jacobian and row.jacobian.gain.value)),
)


# With --attention, before the others.
ATTENTION_COLUMNS = (
    Column("entropy", 7, lambda row: number(row.attention and row.attention.entropy)),
    Column("alike", 7, lambda row: number(row.attention and row.attention.similarity)),
)


# With --precision, before the others.
PRECISION_COLUMNS = (
    Column("float16", 7, lambda row: fraction(row.precision and row.precision.float16)),
    Column("bfloat16", 8, lambda row: fraction(row.precision and row.precision.bfloat16)),
    Column("float8", 6, lambda row: fraction(row.precision and row.precision.float8)),
    Column("scale", 5, lambda row: _power(row.precision)),
)


def _power(precision: PrecisionProfile | None) -> str:
    """``2^12``; a dash where no scale saves the row's gradient."""
    scale = precision and precision.scale
    return f"2^{math.log2(scale):.0f}" if scale else number(None)


def table(report: Report, style: Style, everything: bool) -> RenderableType:
    """One line a row; without ``everything`` at most about ``MOST_ROWS``, with the gaps counted."""
    profile, rows = report.profile, report.rows
    name_width, kind_width = _widths(report, style)
    room = style.width - (name_width + 2) - (kind_width + 2 if kind_width else 0) - (8 + 2)
    needed = sum(column.width + 2 for column in _spoken_of(report))
    if kind_width and room - needed < _LEAST_BAR:
        room, kind_width = room + kind_width + 2, 0
    columns = columns_of(report, max(min(needed, room), room - _BAR[0]))
    room -= sum(column.width + 2 for column in columns)
    bar_width = min(_BAR[1], room) if room >= _LEAST_BAR else 0
    heads: list[tuple[str | Text, str]] = [(profile.unit[:name_width], "left")]
    heads += [("layer", "left")] if kind_width else []
    numbers: list[tuple[str | Text, str]] = [(column.header, "right") for column in columns]
    lines = grid([*heads, ("reach", "right"), (scale(bar_width), "left"), *numbers])
    shown = range(len(rows)) if everything else fold(len(rows), telling(report), MOST_ROWS)
    for gap, index in with_gaps(shown):
        if gap:
            told = plural(gap, profile.unit)
            lines.add_row(*(["⋮", told] if kind_width else [f"⋮ {told}"]), style=FAINT)
        row = rows[index]
        reach = profile.reach_of(row)
        bar = heat_bar(reach, bar_width)
        if row.status in (RowStatus.NOT_RUN, RowStatus.NO_TENSOR):
            bar = Text(row.status.replace("-", " "), style=BAD)
        indent = _indent(row)
        lines.add_row(
            Text(indent + name(style.safe(row.name), name_width - len(indent))),
            *([Text(kind(style.safe(row.kind), kind_width))] if kind_width else []),
            Text(number(reach)),
            bar,
            *(Text(column.read(row)) for column in columns),
        )
    return lines


def _widths(report: Report, style: Style) -> tuple[int, int]:
    """Of the names and of the kinds: the longest one's, up to a share of the whole width.

    On a narrow terminal the kinds, and then the bar, make room for the names.
    """
    names = [_indent(row) + style.safe(row.name) for row in report.rows]
    kinds = [style.safe(row.kind) for row in report.rows]
    name_width = max(len(report.profile.unit), *map(cell_len, names))
    kind_width = max(len("layer"), *map(cell_len, kinds))
    share, kind_share = max(8, style.width // 4), max(8, style.width // 5)
    if style.width >= NARROW or name_width <= share:
        return min(name_width, share), min(kind_width, kind_share)
    name_width = min(name_width, style.width - (8 + 2) - 2)
    left = style.width - (name_width + 2) - (8 + 2) - _BAR[0]
    return name_width, min(kind_width, kind_share) if left >= kind_share + 2 else 0


def columns_of(report: Report, room: int = ENDLESS) -> list[Column]:
    """The columns that find room: first those that a finding speaks of, or that were asked for."""
    requested: list[Column] = []
    if report.theory:  # the factor across the row, going back, and what it should be
        factors = report.profile.factors
        requested += [
            Column("factor", 7, lambda row: number(factors.get(row.name))),
            Column("theory", 7, lambda row: number(row.theory and row.theory.factor)),
        ]
    if any(row.jacobian is not None for row in report.rows):
        requested += JACOBIAN_COLUMNS
    if any(row.attention is not None for row in report.rows):
        requested += ATTENTION_COLUMNS
    if any(row.precision is not None for row in report.rows):
        requested += PRECISION_COLUMNS
    spoken, every = _spoken_of(report), (*requested, *COLUMNS)
    chosen: list[Column] = []
    for column in sorted(every, key=lambda column: column not in spoken):
        if room < column.width + 2:
            break
        chosen.append(column)
        room -= column.width + 2
    return [column for column in every if column in chosen]


def _spoken_of(report: Report) -> list[Column]:
    """The columns of which a finding speaks, or what weighs against the network."""
    reasons = [line.plain for line in training_lines(report, Style(ENDLESS))]
    told = " ".join([*(finding.message for finding in report.findings), *reasons])
    return [column for column in COLUMNS if any(word in told for word in column.words)]


def _indent(row: RowProfile) -> str:
    return "  " * min(row.level, 1)


def telling(report: Report) -> list[int]:
    """Rows that must not be folded away: with a finding, or where the trend breaks."""
    rows = report.rows
    named = {finding.row for finding in report.findings if finding.severity > Severity.INFO}
    with_finding = [i for i, row in enumerate(rows) if row.name in named]
    with_finding += [i for i, row in enumerate(rows) if row.status != "ok"]
    decay = report.profile.decay
    breaks: list[tuple[float, int]] = []
    for i, (row, after) in enumerate(pairwise(rows)):
        if decay and row.gradient_norm and after.gradient_norm:
            factor = row.gradient_norm / after.gradient_norm
            surprise = abs(math.log(factor / decay)) if math.isfinite(factor) else 0.0
            if surprise > math.log(3):
                breaks += [(surprise, i), (surprise, i + 1)]
    return with_finding + [index for _, index in sorted(breaks, reverse=True)]
