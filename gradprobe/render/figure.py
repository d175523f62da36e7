"""Reports → the reach over their rows as a figure for a paper, one line a report. By matplotlib."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradprobe.errors import imported, printable
from gradprobe.measure.profile import RowProfile
from gradprobe.numbers import name
from gradprobe.render.compare import align
from gradprobe.verdict.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".svg", ".png", ".pdf")
_INCHES = (6.4, 3.6)
_NAMED, _NAME = 5, 12  # rows whose names stand below the axis, and their letters
_NO_DATE: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "gradprobe", "pdf.fonttype": 42}


def render_figure(reports: Sequence[Report], suffix: str) -> bytes:
    """The bytes of a file that ends in ``suffix``; the same reports give the same bytes.

    Raises:
        InputError: matplotlib is missing.
    """
    matplotlib = imported("matplotlib", "a figure", "figure")
    from matplotlib.figure import Figure

    kind, written = suffix.removeprefix("."), io.BytesIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a letter that the font has not
        figure = Figure(figsize=_INCHES, layout="constrained")
        plot(reports, figure.subplots())
        figure.savefig(written, format=kind, dpi=200, metadata=_NO_DATE.get(kind))
    return written.getvalue()


def plot(reports: Sequence[Report], ax: Axes | None = None) -> Axes:
    """Draw the reach over the rows into ``ax``, or into new axes of pyplot's.

    Raises:
        InputError: matplotlib is missing.
    """
    imported("matplotlib", "a plot", "figure")
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(figsize=_INCHES, layout="constrained")[1]
    aligned = align([[row for row in report.rows if row.level == 0] for report in reports])
    curves = [[_height(r, row[at]) for row in aligned] for at, r in enumerate(reports)]
    lines = [ax.plot(curve, marker=".", markersize=3)[0] for curve in curves]
    ax.set_yscale("log", nonpositive="clip")
    if not any(height > 0 for curve in curves for height in curve):
        ax.set_ylim(1e-8, 1e4)
    ax.axhline(1, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    ax.set_ylabel("reach")
    _name_rows(ax, [next(row.name for row in each if row) for each in aligned])
    if len(reports) > 1:
        for text in ax.legend(lines, _labels(reports), frameon=False).get_texts():
            text.set_parse_math(False)
    return ax


def _height(report: Report, row: RowProfile | None) -> float:
    """The reach of a row; NaN, which leaves a gap in the line, where it is no number."""
    reach = report.profile.reach_of(row) if row else None
    return reach if reach is not None and math.isfinite(reach) else math.nan


def _labels(reports: Sequence[Report]) -> list[str]:
    """What tells the reports apart. matplotlib leaves out a label that begins with ``_``."""
    targets = [report.target for report in reports]
    labels = [
        f"{report.target}: {report.name}"
        if targets.count(report.target) > 1 and report.name
        else report.target
        for report in reports
    ]
    return [printable(f" {label}" if label.startswith("_") else label) for label in labels]


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Some names below the axis, evenly spread, the first and the last among them."""
    last = len(names) - 1
    places = sorted({round(last * step / (_NAMED - 1)) for step in range(_NAMED)})
    ax.set_xticks(places, [name(names[place], _NAME) for place in places], fontsize="small")
    for text in ax.get_xticklabels():
        text.set_parse_math(False)
    ax.set_xlabel("row, from the input to the loss")
