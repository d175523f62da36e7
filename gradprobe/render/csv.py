"""A report, several, or a sweep → CSV: a line a row or a point, empty where there is no number."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence

from gradprobe.errors import printable
from gradprobe.measure.profile import RowProfile
from gradprobe.tasks.curves import Sweep
from gradprobe.verdict.report import Report

_ROWS = (
    "gradient_norm",
    "activation_rms",
    "zero_fraction",
    "input_dependence",
    "weight_gradient_norm",
    "weight_norm",
)
_COLUMNS = ("target", "row", "kind", "level", "status", "reach", *_ROWS)
# What an option measures beside, by the row's field that has it; it follows where there is some.
_PARTS = {
    "jacobian": ("highway", "branch", "gain"),
    "attention": ("entropy", "similarity"),
    "precision": ("float16", "bfloat16", "float8", "scale"),
}


def render_reports(reports: Sequence[Report]) -> str:
    """Every row of every report."""
    return _written(*table_of(reports))


def table_of(reports: Sequence[Report]) -> tuple[list[str], list[list[object]]]:
    """The columns, and the values of each row: those of the options follow where they are."""
    rows = [row for report in reports for row in report.rows]
    parts = [part for part in _PARTS if any(getattr(row, part) for row in rows)]
    theory = ["factor", "theory"] if any(report.theory for report in reports) else []
    names = [*_COLUMNS, *theory, *(name for part in parts for name in _PARTS[part])]
    lines = []
    for report in reports:
        factors = report.profile.factors if report.theory else {}
        for row in report.rows:
            predicted = [factors.get(row.name), row.theory.factor if row.theory else None]
            lines.append(
                [*_values(report, row), *(predicted if theory else ()), *_parts(row, parts)]
            )
    return names, lines


def _values(report: Report, row: RowProfile) -> list[object]:
    place = (report.target, row.name, row.kind, row.level, str(row.status))
    return [*place, report.profile.reach_of(row), *(getattr(row, name) for name in _ROWS)]


def _parts(row: RowProfile, parts: Iterable[str]) -> Iterator[object]:
    for part in parts:
        for name in _PARTS[part]:
            value = getattr(getattr(row, part), name, None)
            yield getattr(value, "value", value)  # of an estimate


def render_sweep(sweep: Sweep) -> str:
    """Every point, its values on the axes first."""
    axes = [name for name, _ in sweep.axes]
    theory = ["theory"] if sweep.theory else []
    lines: list[list[object]] = []
    for point in sweep.points:
        numbers = [point.reach, point.theory] if theory else [point.reach]
        lines.append([point.target, *point.at, *numbers, str(point.verdict)])
    return _written(["target", *axes, "reach", *theory, "verdict"], lines)


def _written(head: Iterable[str], lines: Iterable[list[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in line] for line in lines)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return "" if value is None else printable(str(value))
