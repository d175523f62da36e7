"""Reports → what the templates show of them: texts, places on the scale, and curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gradprobe.measure.profile import RowProfile
from gradprobe.numbers import number
from gradprobe.render.canvas import DOUBTFUL, ENDLESS, GOOD, VERDICT_COLOURS, Style, fold
from gradprobe.render.compare import FOOTERS, align
from gradprobe.render.html.scale import Scale, curve, scale_of
from gradprobe.render.table import Column, columns_of, telling
from gradprobe.render.text import (
    facts,
    seeds_lines,
    theory_lines,
)
from gradprobe.render.trial import trial_lines
from gradprobe.render.verdict import training_lines, verdict_story
from gradprobe.verdict.report import Finding, Report, Verdict

_WIDE = Style(width=ENDLESS)
MOST_ROWS = 40  # more are folded
_LABEL = 8  # characters of a line's first word in the terminal

# What a column's numbers are: in a word below its header, and in a sentence.
MEANINGS = {
    "reach": ("", "the norm of the gradient at the row ÷ that at the trunk's last row"),
    "factor": ("measured", "what the gradient is multiplied by across the row, going back"),
    "theory": ("predicted", "what mean-field theory says that this factor is"),
    "highway": ("tr J / n", "about 1 where a skip carries the gradient, about 0 without one"),
    "branch": ("RMS gain", "what F, the block without its skip, multiplies the gradient by"),
    "gain": ("RMS gain", "what the whole block multiplies it by: above 1 the gradient grows"),
    "entropy": ("1: even", "how evenly attention looks: 1 at all keys alike, 0 at one of them"),
    "alike": ("cosine", "how alike two tokens come out: 1 where they are the same"),
    "float16": ("lost", "the share of the gradient's entries that float16 makes 0"),
    "bfloat16": ("lost", "the share that bfloat16 makes 0"),
    "float8": ("lost", "the share that float8 (e5m2) makes 0"),
    "scale": ("of the loss", "what the loss has to be multiplied by for float16"),
    "gradient": ("norm", "of the loss's gradient at the row's output, over the whole batch"),
    "output": ("RMS", "the size of what the row puts out"),
    "zeros": ("of output", "the share of the output that is exactly 0"),
    "inputs": (
        "1: told apart",
        "how well the output tells inputs apart: 0 where all look alike",
    ),
    "∂weights": ("norm", "of the gradient of the row's weights"),
    "weights": ("norm", "of the row's weights"),
    "parameters": ("count", "how many the row has"),
}


class RowView(NamedTuple):
    """One line of the table of rows."""

    row: RowProfile
    reach: float | None
    at: float  # on the scale
    shade: str
    cells: list[str]
    findings: list[int]  # their numbers in the report
    mark: str  # see ``marks``


class ReportView(NamedTuple):
    """One report as the template shows it."""

    report: Report
    tone: str
    facts: str
    decay: str
    lines: list[tuple[str, str]]  # (what it is about, what it says)
    columns: list[Column]
    rows: list[RowView]
    findings: list[tuple[Finding, int | None]]  # each with the number of its row
    scale: Scale
    curve: str


def tone(verdict: Verdict) -> str:
    """good, doubtful or bad: the only things that green, yellow and red mean."""
    colour = VERDICT_COLOURS.get(verdict)
    return {GOOD: "good", DOUBTFUL: "doubtful"}.get(colour or "", "bad")


def report_view(report: Report, scale: Scale) -> ReportView:
    """Everything that is shown of a report, on a scale that its page shares."""
    columns, story = columns_of(report), verdict_story(report)
    places = {row.name: index for index, row in enumerate(report.rows)}
    return ReportView(
        report=report,
        tone=tone(report.verdict),
        facts=facts(report),
        decay=story[:1].upper() + story[1:],
        lines=_lines(report),
        columns=columns,
        rows=_rows(report, scale, columns),
        findings=[(f, places.get(f.row) if f.row else None) for f in report.findings],
        scale=scale,
        curve=reach_curve([report.profile.reach_of(row) for row in report.rows], scale),
    )


def _lines(report: Report) -> list[tuple[str, str]]:
    """Theory, training, trial and seeds: what the terminal says, with its first word apart."""
    told = [("theory", line) for line in theory_lines(report, _WIDE)]
    for lines in (training_lines, trial_lines, seeds_lines):
        told += [_parted(line.plain) for line in lines(report, _WIDE)]
    return told


def _parted(text: str) -> tuple[str, str]:
    """A line's first word and the rest, where the rest is aligned behind it."""
    head, rest = text[:_LABEL], text[_LABEL:]
    aligned = head.endswith(" ") and " " not in head.strip()
    return (head.strip(), rest) if aligned else ("", text)


def _rows(report: Report, scale: Scale, columns: list[Column]) -> list[RowView]:
    rows = report.rows
    about: dict[str, list[int]] = {}
    for index, finding in enumerate(report.findings):
        about.setdefault(finding.row or "", []).append(index)
    marked = marks(len(rows), fold(len(rows), telling(report), MOST_ROWS))
    lines = []
    for index, row in enumerate(rows):
        reach = report.profile.reach_of(row)
        lines.append(
            RowView(
                row=row,
                reach=reach,
                at=scale.at(reach) if reach is not None and math.isfinite(reach) else 0.0,
                shade=scale.shade(reach),
                cells=[column.read(row) for column in columns],
                findings=about.get(row.name, []),
                mark=marked[index],
            )
        )
    return lines


def marks(count: int, shown: Iterable[int]) -> list[str]:
    """The class of each line of a table: ``f`` where it is folded, ``gap`` right after those."""
    kept = {-1, *shown}
    return ["f" if i not in kept else "" if i - 1 in kept else "gap" for i in range(count)]


def reach_curve(reaches: Sequence[float | None], scale: Scale) -> str:
    """Reach over rows as an SVG path, with a gap where a reach is not a number."""
    last = max(1, len(reaches) - 1)
    heights = [None if r is None or not math.isfinite(r) else scale.at(r) for r in reaches]
    return curve([(index / last, height) for index, height in enumerate(heights)])


def comparison_view(reports: Sequence[Report]) -> dict[str, Any]:
    """A column a report, its rows from the loss down, and the same as one table."""
    scale = scale_of(r.profile.reach_of(row) for r in reports for row in r.rows)
    aligned = align([[row for row in report.rows if row.level == 0] for report in reports])
    columns = []
    for position, report in enumerate(reports):
        line = [each[position] for each in aligned]
        reaches = [report.profile.reach_of(row) if row else None for row in line]
        measured = list(zip(line, reaches, strict=True))
        cells = [
            (index, scale.shade(reach), row.name, number(reach))
            for index, (row, reach) in enumerate(measured)
            if row
        ]
        notes = [text for read in FOOTERS[1:] if (text := read(report).plain)]
        columns.append(
            {
                "report": report,
                "tone": tone(report.verdict),
                "cells": cells[::-1],
                "reaches": [number(x) if row else "" for row, x in measured],
                "shades": [scale.shade(x) if row else "" for row, x in measured],
                "notes": notes,
                "curve": reach_curve(reaches, scale),
            }
        )
    names = [next(row.name for row in line if row is not None) for line in aligned]
    views = [report_view(report, scale) for report in reports]
    named = {finding.row for report in reports for finding in report.findings}
    keep = [index for index, name in enumerate(names) if name in named]
    marked = marks(len(names), fold(len(names), keep, MOST_ROWS))
    return {"columns": columns, "names": names, "scale": scale, "views": views, "marks": marked}
