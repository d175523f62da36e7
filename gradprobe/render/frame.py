"""A report → a table of pandas, a line a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradprobe.errors import imported
from gradprobe.render.csv import table_of
from gradprobe.verdict.report import Report

if TYPE_CHECKING:
    import pandas


def render_frame(report: Report) -> pandas.DataFrame:
    """The columns of ``--format csv`` without the target, with the names of the rows as the index.

    Those of ``blocks=True`` and the like follow where they were measured: highway, branch and gain.

    Raises:
        InputError: pandas is missing.
    """
    pandas = imported("pandas", "to_pandas", "pandas")
    columns, rows = table_of([report])
    return pandas.DataFrame(rows, columns=columns).set_index("row").drop(columns="target")
