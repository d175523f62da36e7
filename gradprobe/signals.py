"""What a profile says about whether a network will train, as five numbers. No torch.

Each ends at a cap, so that a network far outside what the calibration has seen gets no bolder a
verdict than the worst that it has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from gradprobe.report import GradientProfile, RowStatus

DECADES = 8.0  # of reach
LOST = 4.0  # decades of input dependence
DEEPEST = 100  # rows


class Signals(NamedTuple):
    """What the calibrated verdict is made of: four signs of trouble, and one of health."""

    decay: float  # decades by which the gradient shrinks from the trunk's last row to its first
    growth: float  # decades by which it grows
    lost_inputs: float  # decades of input dependence that the trunk's last row has lost
    bare_depth: float  # log10 of the rows that the gradient crosses × (1 - their mean highway)
    coherence: float  # of the gradient with itself a small step later, 0 to 1


def signals(
    profile: GradientProfile, coherence: float | None, highways: Mapping[str, float]
) -> Signals | None:
    """The signals of one probe.

    Args:
        profile: measured at the level of blocks.
        coherence: see ``coherence.coherence``; with the projection loss, as the calibration's is.
        highways: tr(J)/n by row name, see ``coherence.highways``; rows that change the shape have
            none and are left out of the mean.

    Returns:
        ``None`` where there is nothing to weigh: fewer than two rows, no parameters, a batch of
        one, a gradient that is zero, missing or not finite. Those are other rules' business.
    """
    trunk, reach = profile.trunk, profile.reach
    if not profile.parameters or profile.steps < 1 or not reach:
        return None
    dependence = trunk[-1].input_dependence
    numbers = (reach, dependence, coherence, profile.loss)
    if not all(x is not None and math.isfinite(x) for x in numbers):
        return None
    if any(row.status is RowStatus.NON_FINITE for row in profile.ran):
        return None
    decades = math.log10(reach)
    measured = [highways[row.name] for row in trunk[1:] if row.name in highways]
    highway = math.fsum(measured) / len(measured) if measured else 0.0
    lost = -math.log10(dependence) if dependence else LOST
    return Signals(
        decay=_between(-decades, DECADES),
        growth=_between(decades, DECADES),
        lost_inputs=_between(lost, LOST),
        bare_depth=math.log10(min(profile.steps, DEEPEST)) * (1 - _between(highway, 1.0)),
        coherence=_between(coherence, 1.0),
    )


def _between(value: float | None, high: float) -> float:
    """``value``, not below 0 and not above ``high``; never -0, and 0 for what is no number."""
    return min(max(0.0, value), high) if value is not None and math.isfinite(value) else 0.0
