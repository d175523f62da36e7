"""The check's result, and a comparison → Markdown for a step summary or a review comment."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from gradprobe.errors import printable
from gradprobe.numbers import number
from gradprobe.render.check.text import summary
from gradprobe.render.compare import FOOTERS, align
from gradprobe.tasks.check.result import CheckResult, Diagnostic, Outcome
from gradprobe.verdict.report import Report

_SPECIAL = re.compile(r"([\\`*_{}\[\]|~])")
# No tag, nobody is called, and no issue is linked.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "#": "&#35;"}


def render_markdown(result: CheckResult) -> str:
    """A heading with the summary, and a table of the findings that count."""
    lines = [f"### gradprobe: {summary(result)}"]
    rows = [
        _row(outcome, diagnostic)
        for outcome in result.outcomes
        for diagnostic in outcome.diagnostics
        if diagnostic.counts
    ]
    if rows:
        lines += ["", *table_lines(["spec", "verdict", "reach", "finding", "what to do"], rows)]
    return "\n".join(lines) + "\n"


def render_comparison(reports: Sequence[Report]) -> str:
    """The reach of every row, one column a report, and the verdicts below."""
    aligned = align([[r for r in report.rows if r.level == 0] for report in reports])
    rows = []
    for line in aligned:
        name = next(row.name for row in line if row is not None)
        reaches = [
            number(report.profile.reach_of(row)) if row else ""
            for report, row in zip(reports, line, strict=True)
        ]
        rows.append([escaped(name), *reaches])
    for read in FOOTERS:
        rows.append(["", *(escaped(read(report).plain) for report in reports)])
    heads = ["row", *(escaped(report.target) for report in reports)]
    return "\n".join(table_lines(heads, rows)) + "\n"


def _row(outcome: Outcome, diagnostic: Diagnostic) -> list[str]:
    report = outcome.report
    reach = report.reach if report else None
    return [
        f"{escaped(diagnostic.path)}:{diagnostic.line}",
        str(report.verdict) if report else "none",
        number(reach) if reach is not None and math.isfinite(reach) else "",
        f"**{diagnostic.rule} {escaped(diagnostic.name)}** {escaped(diagnostic.message)}",
        escaped(diagnostic.advice),
    ]


def table_lines(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    marked = _SPECIAL.sub(r"\\\1", printable(text))
    return "".join(_ENTITIES.get(character, character) for character in marked)
