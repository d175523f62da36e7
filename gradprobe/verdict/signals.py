"""What a profile says about whether a network will train, as seven numbers. No torch.

Each ends at a cap, so that a network far outside what the calibration has seen gets no bolder a
verdict than the worst that it has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gradprobe.measure.profile import GradientProfile, RowProfile, RowStatus
from gradprobe.spec.vocabulary import RECURRENT_CELLS
from gradprobe.verdict.report import Signals

DECADES = 8.0  # of reach below 1
GROWN = 2.0  # decades of reach above 1: more were no worse
FORWARD = 6.0  # decades of activations
LOST = 4.0  # decades of input dependence, and of the gradient of a sequence's first position

# Why there is nothing to weigh; the first that holds is told.
OBSTACLES: dict[str, Callable[[GradientProfile], bool]] = {
    "the network has no parameters": lambda p: not p.parameters,
    "the loss, an output or a gradient is not finite": lambda p: not _all_finite(p),
    "fewer than two rows to compare": lambda p: p.steps < 1,
    "an end of the trunk has no gradient": lambda p: is_cut(p),
    "the gradient is zero": lambda p: not p.reach,
    "a batch of one does not tell inputs apart": lambda p: p.trunk[-1].input_dependence is None,
}


def obstacle(profile: GradientProfile) -> str | None:
    """Why the profile has no signals, in words; ``None`` where it has."""
    profile = without_time(profile)
    return next((reason for reason, holds in OBSTACLES.items() if holds(profile)), None)


def is_cut(profile: GradientProfile) -> bool:
    """Whether an end of the trunk has no gradient."""
    return any(row.gradient_norm is None for row in (*profile.trunk[:1], *profile.trunk[-1:]))


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
    profile = without_time(profile)
    trunk, reach = profile.trunk, profile.reach
    assert reach is not None
    # Where the last weights of the trunk are: pooling behind them makes random inputs look alike.
    weighted = {row.module for row in trunk if row.parameters}
    top = next((row for row in reversed(trunk) if row.module in weighted), trunk[-1])
    dependence = top.input_dependence
    decades = math.log10(reach)
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


def without_time(profile: GradientProfile) -> GradientProfile:
    """The rows of depth alone: the steps of a loop over a recurrent cell are one row each.

    Those are the calls of a cell, and of a row that runs between them, but never twice between two:
    as a layer is one row with all its positions. Such a row's gradient is that of all calls, and
    its activations are the last one's. What is lost from step to step is ``lost_past``.
    """
    steps = _in_step(profile.ran)
    if not steps:
        return profile
    rows: dict[str, RowProfile] = {}
    for row in profile.ran:
        module = row.module
        key = module if module in steps else row.name
        rows[key] = _both(rows[key], row) if key in rows else row
    return replace(profile, rows=tuple(rows.values()))


def _both(first: RowProfile, row: RowProfile) -> RowProfile:
    """Two steps of one row, as one."""
    norms = [n for n in (first.gradient_norm, row.gradient_norm) if n is not None]
    broken = RowStatus.NON_FINITE in (first.status, row.status)
    return first._replace(
        gradient_norm=math.hypot(*norms) if norms else None,
        activation_rms=row.activation_rms,
        input_dependence=row.input_dependence,
        status=RowStatus.NON_FINITE if broken else RowStatus.OK if norms else row.status,
    )


def _in_step(rows: Sequence[RowProfile]) -> set[str]:
    """The modules of which each call is one step of a loop over a recurrent cell."""
    cells = {row.module for row in rows if not RECURRENT_CELLS.isdisjoint(row.contains)}
    if not cells:
        return set()
    times = Counter(row.module for row in rows)
    cells = {cell for cell in cells if times[cell] > 1}
    steps = 0  # calls of those cells so far
    at: dict[str, int] = {}  # how many there had been when a module was called last
    deep = set()
    for row in rows if cells else ():  # a cell that is called once is no loop
        module = row.module
        if module in cells:
            steps += 1
        elif at.get(module) == steps:
            deep.add(module)
        at[module] = steps
    return {module for module in at if times[module] > 1} - deep


def _forward_growth(profile: GradientProfile) -> float:
    """Decades by which the activations grow along the trunk.

    From an RMS of 1 on: an embedding that starts small, with norms to follow, has not grown.
    """
    first, last = profile.trunk[0].activation_rms, profile.trunk[-1].activation_rms
    return math.log10(last / max(1.0, first or 0.0)) if last else 0.0


def _between(value: float | None, high: float) -> float:
    """``value``, not below 0 and not above ``high``; never -0, and 0 for what is no number."""
    return min(max(0.0, value), high) if value is not None and math.isfinite(value) else 0.0
