"""A sweep → what its template shows: curves with theory over depth, or a map over two axes."""

from __future__ import annotations

import math
from typing import Any

from gradprobe.numbers import number
from gradprobe.render.html.scale import Scale, curve, scale_of
from gradprobe.render.html.views import tone
from gradprobe.render.sweep import edge_story, fit_story, theory_between
from gradprobe.tasks.curves import Point, Sweep, fit, greatest_healthy

_FINE = 60  # places across, at which theory is drawn


def sweep_view(sweep: Sweep) -> dict[str, Any]:
    """The points of every target with their place on the page's scale."""
    scale = scale_of(r for point in sweep.points for r in (point.reach, point.theory))
    return {
        "sweep": sweep,
        "scale": scale,
        "curves": [_curve(sweep, target, scale) for target in sweep.targets],
        "map": len(sweep.axes) == 2,
    }


def _curve(sweep: Sweep, target: str, scale: Scale) -> dict[str, Any]:
    points = sweep.curve(target)
    cells = [
        {
            "point": point,
            "reach": number(point.reach),
            "theory": number(point.theory),
            "shade": scale.shade(point.reach),
            "tone": tone(point.verdict),
            "edge": _crosses(sweep, points, index),
        }
        for index, point in enumerate(points)
    ]
    view: dict[str, Any] = {"target": target, "cells": cells}
    if sweep.over_depth:
        deepest = greatest_healthy(points)
        view |= _lines(points, scale)
        view["healthy_up_to"] = "-" if deepest is None else f"{deepest:,}"
        view["fit"] = fit_story(fit(points))
    view["edge"] = edge_story(sweep, target) if sweep.theory and len(sweep.axes) == 2 else ""
    return view


def _crosses(sweep: Sweep, points: list[Point], index: int) -> bool:
    """Whether theory's edge of chaos lies between this cell of a map and the one before."""
    point = points[index]
    edge = sweep.edges.get((point.target, point.at[0]))
    if edge is None or len(point.at) < 2 or float(point.at[1]) < edge:
        return False
    before = points[index - 1] if index else point
    return before.at[0] != point.at[0] or before is point or float(before.at[1]) < edge


def _lines(points: list[Point], scale: Scale) -> dict[str, Any]:
    """Measured and predicted, over the logarithm of the depth."""
    points = sorted(points, key=lambda point: point.depth)
    left, right = (math.log10(end(point.depth for point in points)) for end in (min, max))
    span = (right - left) or 1.0
    across = [10 ** (left + (right - left) * i / _FINE) for i in range(_FINE + 1)]
    heights = theory_between(points, across)
    theory = [(i / _FINE, None if h is None else scale.at(10**h)) for i, h in enumerate(heights)]
    measured = [
        ((math.log10(p.depth) - left) / span, scale.at(p.reach))
        for p in points
        if p.reach is not None and math.isfinite(p.reach)
    ]
    return {"curve": curve(measured), "theory": curve(theory), "dots": measured}
