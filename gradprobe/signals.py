"""What a profile says about whether a network will train, as seven numbers. No torch.

Each ends at a cap, so that a network far outside what the calibration has seen gets no bolder a
verdict than the worst that it has.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping

from gradprobe.report import GradientProfile, RowProfile, RowStatus, Signals
from gradprobe.vocabulary import RECURRENT_CELLS

DECADES = 8.0  # of reach below 1
GROWN = 2.0  # decades of reach above 1: more were no worse
FORWARD = 6.0  # decades of activations
LOST = 4.0  # decades of input dependence, and of the gradient of a sequence's first position


_FURTHER_CALL = re.compile(r" \(\d+\)$")  # of a module: its row's name is numbered

# Why there is nothing to weigh; the first that holds is told.
OBSTACLES: dict[str, Callable[[GradientProfile], bool]] = {
    "the network has no parameters": lambda p: not p.parameters,
    "the loss, an output or a gradient is not finite": lambda p: not _all_finite(p),
    "fewer than two rows to compare": lambda p: p.steps < 1,
    "an end of the trunk has no gradient": lambda p: is_cut(p),
    "the gradient is zero": lambda p: not all(_ends(p)),
    "a batch of one does not tell inputs apart": lambda p: p.trunk[-1].input_dependence is None,
}


def obstacle(profile: GradientProfile) -> str | None:
    """Why the profile has no signals, in words; ``None`` where it has."""
    return next((reason for reason, holds in OBSTACLES.items() if holds(profile)), None)


def is_cut(profile: GradientProfile) -> bool:
    """Whether an end of the trunk has no gradient."""
    return bool(profile.trunk) and None in _ends(profile)


def _all_finite(profile: GradientProfile) -> bool:
    dependence = [row.input_dependence for row in profile.trunk[-1:]]
    numbers = (profile.loss, profile.reach, *dependence)
    finite = all(x is None or math.isfinite(x) for x in numbers)
    return finite and not any(row.status is RowStatus.NON_FINITE for row in profile.ran)


def signals(
    profile: GradientProfile,
    coherence: float | None,
    highways: Mapping[str, float],
    lost_past: float = 0.0,
) -> Signals | None:
    """The signals of one probe.

    Args:
        profile: measured at the level of blocks.
        coherence, highways, lost_past: see ``coherence.SecondLook``; with the projection loss, as
            the calibration's are. Rows that change the shape have no highway and are left out of
            the mean, as are those without weights: what works on each element, a ReLU or a norm,
            has a diagonal and is no skip.

    Returns:
        ``None`` where there is nothing to weigh: an ``obstacle``, or no coherence. Those are other
        rules' business.
    """
    if obstacle(profile) or coherence is None or not math.isfinite(coherence):
        return None
    trunk = profile.trunk
    # Where the last weights of the trunk are: pooling behind them makes random inputs look alike.
    weighted = {_module(row) for row in trunk if row.parameters}
    top = next((row for row in reversed(trunk) if _module(row) in weighted), trunk[-1])
    dependence = top.input_dependence
    first, last = _ends(profile)
    assert first
    assert last
    decades = math.log10(first) - math.log10(last)
    mixing = [row for row in trunk[1:] if any(p.dimensions > 1 for p in row.parameters)]
    measured = [highways[row.name] for row in mixing if row.name in highways]
    bare = 1 - _between(math.fsum(measured) / len(measured) if measured else 0.0, 1.0)
    coherent = _between(coherence, 1.0)
    lost = -math.log10(dependence) if dependence else LOST
    return Signals(
        decay=_between(-decades, DECADES),
        growth=_between(decades, GROWN) * bare,
        forward_growth=_between(_forward_growth(profile), FORWARD),
        lost_inputs=_between(lost, LOST),
        lost_past=_between(lost_past, LOST),
        shattering=(1 - coherent) * bare,
        coherence=coherent,
    )


def _ends(profile: GradientProfile) -> tuple[float | None, float | None]:
    """Gradient norms of the trunk's first and last row; ``None`` where none arrives.

    In a loop over a recurrent cell, calls are steps of time and no depth: those of the cell, and of
    every row that is called as often, are one row there, as a layer is with all its positions. What
    is lost from step to step is ``lost_past``.
    """
    times = Counter(map(_module, profile.ran))
    cells = [row for row in profile.ran if RECURRENT_CELLS & set(row.contains)]
    steps = min((times[_module(cell)] for cell in cells if times[_module(cell)] > 1), default=None)

    def norm(end: RowProfile) -> float | None:
        calls = [end]
        if steps and times[_module(end)] >= steps:
            calls = [row for row in profile.ran if _module(row) == _module(end)]
        found = [row.gradient_norm for row in calls if row.gradient_norm is not None]
        return math.hypot(*found) if found else None

    return norm(profile.trunk[0]), norm(profile.trunk[-1])


def _module(row: RowProfile) -> str:
    """The row's name without the number of a further call, as in ``cell (2)``."""
    return _FURTHER_CALL.sub("", row.name)


def _forward_growth(profile: GradientProfile) -> float:
    """Decades by which the activations grow along the trunk.

    From an RMS of 1 on: an embedding that starts small, with norms to follow, has not grown.
    """
    first, last = profile.trunk[0].activation_rms, profile.trunk[-1].activation_rms
    return math.log10(last / max(1.0, first or 0.0)) if last else 0.0


def _between(value: float | None, high: float) -> float:
    """``value``, not below 0 and not above ``high``; never -0, and 0 for what is no number."""
    return min(max(0.0, value), high) if value is not None and math.isfinite(value) else 0.0
