"""What a profile says about whether a network will train, as eight numbers. No torch.

Each is 0 where nothing is wrong (``coherence`` and ``highway``: where nothing is right) and ends at
a cap, so that a network far outside what the calibration has seen gets no bolder a verdict than the
worst that it has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from gradprobe.report import GradientProfile, RowStatus

DECADES = 8.0  # of reach and of RMS
EARLY = 2.0  # decades of decay after which more of it matters less
LOST = 4.0  # decades of input dependence
DEEPEST = 100  # rows


class Signals(NamedTuple):
    """What the calibrated verdict is made of."""

    decay: float  # decades by which the gradient shrinks from the trunk's last row to its first
    early_decay: float  # the same, capped at two
    growth: float  # decades by which it grows
    swelling: float  # decades by which the output's RMS grows from the first row to the last
    lost_inputs: float  # decades of input dependence lost at the trunk's last row
    depth: float  # log10 of the rows that the gradient crosses
    coherence: float  # of the gradient with itself one small step later, 0 to 1
    highway: float  # mean of tr(J)/n over the rows that the gradient crosses, 0 to 1


def signals(
    profile: GradientProfile, coherence: float | None, highways: Mapping[str, float]
) -> Signals | None:
    """The signals of one probe.

    Args:
        profile: measured at the level of blocks.
        coherence: see ``coherence.coherence``; with the projection loss.
        highways: tr(J)/n by row name, see ``coherence.highways``; rows that change the shape have
            none and are left out of the mean.

    Returns:
        ``None`` where there is nothing to weigh: fewer than two rows, no parameters, a batch of
        one, a gradient that is zero, missing or not finite. Those are other rules' business.
    """
    trunk, reach = profile.trunk, profile.reach
    if not profile.parameters or profile.steps < 1 or coherence is None:
        return None
    if any(row.status is RowStatus.NON_FINITE for row in profile.ran):
        return None
    first, last = trunk[0].activation_rms, trunk[-1].activation_rms
    dependence = trunk[-1].input_dependence
    numbers = (reach, first, last, dependence, profile.loss, coherence)
    if not all(x is not None and math.isfinite(x) for x in numbers) or not (reach and first):
        return None
    decades = math.log10(reach)
    measured = [highways[row.name] for row in trunk[1:] if row.name in highways]
    highway = math.fsum(measured) / len(measured) if measured else 0.0
    return Signals(
        decay=_between(-decades, DECADES),
        early_decay=_between(-decades, EARLY),
        growth=_between(decades, DECADES),
        swelling=_between(_log10(last, -DECADES) - math.log10(first), DECADES),
        lost_inputs=_between(-_log10(dependence, -LOST), LOST),
        depth=math.log10(min(profile.steps, DEEPEST)),
        coherence=_between(coherence, 1.0),
        highway=_between(highway, 1.0),
    )


def _between(value: float, high: float) -> float:
    """``value``, not below 0 and not above ``high``; never -0."""
    return min(max(0.0, value), high) if math.isfinite(value) else 0.0


def _log10(value: float | None, low: float) -> float:
    return math.log10(value) if value else low
