"""Differences → what their template shows: both curves on one scale, and the rows that changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradprobe.render.canvas import fold
from gradprobe.render.diff import layer_of, outcome, reach_text, what_changed
from gradprobe.render.html.scale import Scale, scale_of
from gradprobe.render.html.views import MOST_ROWS, marks, reach_curve, tone
from gradprobe.tasks.diff import Difference, RowChange


def differences_view(differences: Sequence[Difference]) -> dict[str, Any]:
    """Every difference of a page, on the scale that they share."""
    scale = scale_of(reach for d in differences for row in d.rows for reach in row.reaches)
    return {"scale": scale, "views": [_view(difference, scale) for difference in differences]}


def _view(difference: Difference, scale: Scale) -> dict[str, Any]:
    rows, sides = difference.rows, (difference.before, difference.after)
    changed = [index for index, row in enumerate(rows) if row.what] or list(range(len(rows)))
    parting = difference.parting and difference.parting.row
    keep = [place for place, index in enumerate(changed) if rows[index].row.name == parting]
    shown = [changed[place] for place in fold(len(changed), keep, MOST_ROWS)]
    return {
        "difference": difference,
        "tones": [tone(report.verdict) for report in sides],
        "outcome": outcome(difference),
        "curves": [reach_curve([row.reaches[side] for row in rows], scale) for side in (0, 1)],
        "lines": [_line(change, scale) for change in rows],
        "marks": marks(len(rows), shown),
    }


def _line(change: RowChange, scale: Scale) -> dict[str, Any]:
    sides = [
        (reach_text(change, side), scale.shade(change.reaches[side]) if row else "")
        for side, row in enumerate((change.before, change.after))
    ]
    return {
        "change": change,
        "layer": layer_of(change),
        "reaches": sides,
        "what": what_changed(change),
    }
