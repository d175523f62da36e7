"""A report → a table of pandas, a line a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradprobe.errors import imported
from gradprobe.render.csv import COLUMNS, values_of
from gradprobe.verdict.report import Report

if TYPE_CHECKING:
    import pandas


def render_frame(report: Report) -> pandas.DataFrame:
    """The columns of ``--format csv`` without the target, with the names of the rows as the index.

    Those of ``blocks=True`` follow where they were measured: highway, branch and gain.

    Raises:
        InputError: pandas is missing.
    """
    pandas = imported("pandas", "to_pandas", "pandas")
    frame = pandas.DataFrame([values_of(report, row) for row in report.rows], columns=COLUMNS)
    if any(row.jacobian for row in report.rows):
        for part in ("highway", "branch", "gain"):
            frame[part] = [
                getattr(row.jacobian, part).value if row.jacobian else None for row in report.rows
            ]
    return frame.set_index("row").drop(columns="target")
