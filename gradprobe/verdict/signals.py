"""What a profile says about whether a network will train, as eight numbers. No torch.

A signal is three things: its number, here; its weights, in ``calibration.py``; and its words, in
``causes.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from gradprobe.measure.measurement import STEPS, Course, Outcome, Trial
from gradprobe.measure.obstacles import obstacle, without_time
from gradprobe.measure.profile import GradientProfile


class Signals(NamedTuple):
    """What the calibrated verdict is made of: six signs of trouble, and two of health."""

    decay: float  # decades by which the gradient shrinks from the trunk's last row to its first
    # decades by which it grows × (1 - the rows' mean highway) × (1 - invariant)
    growth: float
    forward_growth: float  # decades by which the activations grow along the trunk: one is harmless
    lost_inputs: float  # decades of input dependence lost by the trunk's last row with weights
    lost_past: float  # decades by which it shrinks along a recurrent layer's sequence
    shattering: float  # (1 - coherence) × (1 - the mean highway), 0 to 1
    coherence: float  # of the gradient with itself a small step later, 0 to 1
    invariant: float = 0.0  # the share of the weights whose scale a normalisation takes out, 0 to 1

    @property
    def bare(self) -> float:
        """1 - the mean highway, as far as ``shattering`` tells: 0 where the coherence is 1."""
        return self.shattering / (1 - self.coherence) if self.coherence < 1 else 0.0


# Where each signal ends, so that a network far outside what the calibration has seen gets no bolder
# a verdict than the worst that it has. Of growth more was no worse.
CAPS = Signals(
    decay=8.0,
    growth=2.0,
    forward_growth=6.0,
    lost_inputs=4.0,
    lost_past=4.0,
    shattering=1.0,
    coherence=1.0,
    invariant=1.0,
)


_POOLED = 8.0  # what an average pool took at most in the calibration's networks, of 8×8 positions


def signals(
    profile: GradientProfile,
    coherence: float | None,
    highways: Mapping[str, float],
    lost_past: float = 0.0,
    invariant: float = 0.0,
) -> Signals | None:
    """The signals of one probe.

    Args:
        profile: measured at the level of blocks.
        coherence: of the gradient with itself a small step later, with the projection loss.
        highways: of the rows that have one, by name.
        lost_past: decades that a gradient loses along a recurrent layer's sequence.
        invariant: share of the weights in front of a normalisation. Their gradient may grow: their
            step, relative to them, comes to be the same (Arora, Li and Lyu 2018, arXiv 1812.03981).

    Returns:
        ``None`` where there is nothing to weigh: an ``obstacle``, or no coherence.
    """
    if obstacle(profile) or coherence is None or not math.isfinite(coherence):
        return None
    profile = without_time(profile)
    decades = math.log10((profile.reach or 1.0) / min(1.0, _POOLED * profile.pooled))
    bare = 1 - _mean_highway(profile, highways)
    coherence, invariant = _between(coherence, 1.0), _between(invariant, 1.0)
    measured = Signals(
        decay=-decades,
        growth=_between(decades, CAPS.growth) * bare * (1 - invariant),
        forward_growth=_forward_growth(profile),
        lost_inputs=_lost_inputs(profile),
        lost_past=lost_past,
        shattering=(1 - coherence) * bare,
        coherence=coherence,
        invariant=invariant,
    )
    return Signals(*map(_between, measured, CAPS))


class Effort(NamedTuple):
    """How hard a trial was: 0 where it learned at once, to 2 where no loss fell."""

    sgd: float  # of the rates of SGD
    adam: float  # of all rates


def effort(trial: Trial) -> Effort | None:
    """What a trial adds to the signals.

    Of the rate that did best: where it learned, the logarithm of its steps ÷ that of ``STEPS``;
    else 1 and the part of the decade to go that its loss did not come. ``None`` where time cut the
    trial, or there was none.
    """
    if trial.cut or not trial.courses:
        return None
    sgd = [_effort(course) for course in trial.courses if course.optimizer == "SGD"]
    return Effort(min(sgd, default=2.0), min(map(_effort, trial.courses)))


def _effort(course: Course) -> float:
    if course.outcome is Outcome.LEARNED:
        return math.log(max(1, course.steps)) / math.log(STEPS)
    share = course.losses[-1] / course.losses[0]
    return 1 + (_between(1 + math.log10(share), 1.0) if share and math.isfinite(share) else 1.0)


def _mean_highway(profile: GradientProfile, highways: Mapping[str, float]) -> float:
    """Between 0 and 1, of the rows of the trunk but its first, as far as they have one.

    Rows that change the shape have none, unless their input comes through or a linear map of it is
    added. Rows without a matrix are left out: what works on each
    element, a ReLU or a norm, has a diagonal and is no skip.
    """
    mixing = [row for row in profile.trunk[1:] if any(p.dimensions > 1 for p in row.parameters)]
    measured = [highways[row.name] for row in mixing if row.name in highways]
    return _between(math.fsum(measured) / len(measured), 1.0) if measured else 0.0


def _lost_inputs(profile: GradientProfile) -> float:
    """Decades of input dependence lost where the last weights of the trunk are.

    Pooling behind them makes random inputs look alike. What puts out nothing but zeros is not
    asked: it is a branch that starts at zero, or dead.
    """
    trunk = [row for row in profile.trunk if row.activation_rms != 0] or profile.trunk
    weighted = {row.module for row in trunk if row.parameters}
    top = next((row for row in reversed(trunk) if row.module in weighted), trunk[-1])
    return -math.log10(top.input_dependence) if top.input_dependence else CAPS.lost_inputs


def _forward_growth(profile: GradientProfile) -> float:
    """Decades by which the activations grow along the trunk.

    From an RMS of 1 on: an embedding that starts small, with norms to follow, has not grown.
    """
    first, last = profile.trunk[0].activation_rms, profile.trunk[-1].activation_rms
    return math.log10(last / max(1.0, first or 0.0)) if last else 0.0


def _between(value: float | None, high: float) -> float:
    """``value``, not below 0 and not above ``high``; never -0, and 0 for what is no number."""
    return min(max(0.0, value), high) if value is not None and math.isfinite(value) else 0.0
