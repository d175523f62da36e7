"""A report, several, or a sweep → CSV: a line a row or a point, empty where there is no number."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

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
COLUMNS = ("target", "row", "kind", "level", "status", "reach", *_ROWS)


def render_reports(reports: Sequence[Report]) -> str:
    """Every row of every report."""
    lines = [values_of(report, row) for report in reports for row in report.rows]
    return _written(COLUMNS, lines)


def values_of(report: Report, row: RowProfile) -> list[object]:
    """What stands in the columns, of one row."""
    place = (report.target, row.name, row.kind, row.level, str(row.status))
    return [*place, report.profile.reach_of(row), *(getattr(row, name) for name in _ROWS)]


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
