"""Losses → whether the targets that they compare with are of a usual size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradprobe.measure.surroundings import LossProfile
from gradprobe.numbers import number
from gradprobe.verdict.rules.rule import Clue

LARGE = 20.0  # RMS of inputs and of targets; sound ones had 4.5 at most, faulty ones 56 or more
GUESS = 1e4  # times the loss of a constant guess; sound but for a few up to 6,495, faulty 40,000
_USUAL = 5.0  # RMS of an error: outputs of torch's inits are below 1, sound inputs had 4.5 at most


def unscaled(losses: Sequence[LossProfile]) -> Clue | None:
    """That targets are too large, or so near each other that outputs of a usual size are far."""
    rms = max((loss.target_rms or 0.0 for loss in losses), default=0.0)
    if rms > LARGE:
        times = max(loss.times_guess or 0.0 for loss in losses)
        return _clue(f"RMS {number(rms)}", times, rms, LARGE)
    for loss in filter(_is_small, losses):
        ratio, spread = loss.times_guess or 0.0, number(loss.target_spread or 0.0)
        return _clue(f"a standard deviation of {spread}", ratio, ratio, GUESS)
    return None


def _is_small(loss: LossProfile) -> bool:
    """Whether outputs of a usual size are far off, as the targets are hardly apart."""
    ratio, spread = loss.times_guess or 0.0, loss.target_spread
    return ratio > GUESS and spread is not None and math.sqrt(ratio) * spread < _USUAL


def _clue(size: str, times: float, value: float, threshold: float) -> Clue:
    """Targets that are far from 1, with the loss ÷ that of a constant guess where there is one."""
    loss = f"the loss {number(times)} times that of a constant guess; a usual step overshoots"
    message = f"the targets are not scaled: {size}" + (f", and {loss}" if times else "")
    advice = "scale the targets: y = (y - y.mean()) / y.std(); or a far smaller learning rate"
    return Clue(message, advice, None, value, threshold)
