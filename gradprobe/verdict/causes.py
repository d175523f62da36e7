"""What loses a gradient, in words: where it happens, how a finding says it, and what mends it.

``CAUSES`` has every signal; the bands of reach use the same words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from gradprobe.measure.obstacles import without_time
from gradprobe.measure.profile import GradientProfile, RowProfile
from gradprobe.numbers import fraction, number
from gradprobe.spec.layers import RECURRENT_CELLS, Trait, kinds
from gradprobe.verdict.report import Verdict
from gradprobe.verdict.signals import CAPS, Signals

# ---- where


class _Step(NamedTuple):
    """The row across which the gradient changes most, and the factor by which it does."""

    row: RowProfile
    factor: float


def _culprit(profile: GradientProfile) -> _Step | None:
    """The one row across which more than half of the loss or growth (in decades) happens."""
    reach, trunk = profile.reach, profile.trunk
    if not reach or reach == 1 or not math.isfinite(reach) or len(trunk) < 3:
        return None
    steps = [
        _Step(after, row.gradient_norm / after.gradient_norm)
        for row, after in pairwise(trunk)
        if row.gradient_norm and after.gradient_norm
    ]
    shares = [math.log(step.factor) / math.log(reach) for step in steps if step.factor > 0]
    if len(shares) < len(steps) or max(shares, default=0.0) <= 0.5:
        return None
    return steps[shares.index(max(shares))]


def row_at_fault(profile: GradientProfile) -> RowProfile:
    """The row to point at: where the gradient is lost or, where that is everywhere, the first."""
    culprit = _culprit(profile)
    return culprit.row if culprit else profile.trunk[0]


def _recurrent_row(profile: GradientProfile) -> RowProfile:
    """The first of the trunk with a recurrent layer or cell."""
    names = kinds(Trait.RECURRENT) | RECURRENT_CELLS
    return next((row for row in profile.trunk if names & set(row.contains)), profile.trunk[0])


def shrinks(profile: GradientProfile) -> str:
    """How a gradient that gets smaller is told: by how much, over what."""
    reach = profile.reach or 0.0
    if reach == 0:
        return "falls below the smallest number of its dtype (--dtype float64 shows how far)"
    return f"shrinks to {number(reach)} of itself over {_where(profile)}"


def grows(profile: GradientProfile) -> str:
    """How a gradient that gets larger is told."""
    return f"grows {number(profile.reach)} times over {_where(profile)}"


def _where(profile: GradientProfile) -> str:
    """``50 rows, ×0.577 per row``, or the one row across which most of it happens."""
    unit = profile.unit
    rows = f"{profile.steps} {unit}s" if profile.steps != 1 else f"one {unit}"
    if culprit := _culprit(profile):
        return f"{rows}, most of it across {unit} {culprit.row.name} (×{number(culprit.factor)})"
    decay = profile.decay
    return f"{rows}, ×{number(decay)} per {unit}" if decay and profile.steps > 1 else rows


def _kinds(profile: GradientProfile) -> set[str]:
    """The kinds of layer in the trunk; a recurrent cell is of its layer's."""
    return {kind.removesuffix("Cell") for row in profile.trunk for kind in row.contains}


# ---- what mends it

_SATURATING = {"Sigmoid": "at most 0.25", "Hardsigmoid": "at most 0.17"}


def advice_for_small(profile: GradientProfile) -> str:
    """What mends a gradient that shrinks, by the kinds of layer in the trunk."""
    inside = _kinds(profile)
    for kind, slope in _SATURATING.items():
        if kind in inside and profile.unit == "row":
            return f"{kind}'s slope is {slope}: use Tanh, ReLU or GELU, and skip connections"
    if "residual" in inside:
        return "keep the skip clean: skip_scale 1, and no layer between the blocks"
    if "RNN" in inside:
        return "use LSTM or GRU, or an orthogonal recurrent matrix"
    if profile.unit == "position" or len(without_time(profile).trunk) < len(profile.trunk) / 2:
        return "shorten the sequence, raise the forget gate's bias, or attend over it"
    if inside & kinds(Trait.HALF_LINEAR):
        return "init: {weight: kaiming_normal, bias: zeros}, or wrap each block in residual: […]"
    return "raise the gain of the init, normalise, or wrap each block in residual: […]"


def advice_for_large(profile: GradientProfile) -> str:
    """What mends a gradient that grows, by the kinds of layer in the trunk."""
    inside = _kinds(profile)
    if "residual" in inside:
        return _advice_for_branches(profile)
    if any("BatchNorm" in kind for kind in inside):
        return "BatchNorm without a skip explodes with depth: wrap each block in residual: […]"
    return "lower the gain of the init, or normalise inside residual blocks"


def _advice_for_branches(profile: GradientProfile) -> str:
    scale = number(1 / math.sqrt(max(2, profile.steps)))
    return f"branch_scale: {scale} (1/sqrt(depth)), zero_init: true, or pre-norm"


def _advice_for_shattered(profile: GradientProfile, signals: Signals) -> str:
    if signals.bare <= _BARE:
        return _advice_for_branches(profile)
    if signals.growth >= 1 and not any("Norm" in kind for kind in _kinds(profile)):
        return "lower the gain of the init, wrap each block in residual: […], or use fewer rows"
    return "wrap each block in residual: […], or use fewer rows"


def _advice_for_forgotten(profile: GradientProfile, signals: Signals) -> str:
    if _kinds(profile) & {"LSTM", "GRU"}:
        return "read every position, shorten the sequence, or raise the forget gate's bias"
    return "use LSTM or GRU, an orthogonal recurrent matrix, or read every position"


def _advice_for_alike(profile: GradientProfile, signals: Signals) -> str:
    return "normalise, raise the gain of the init, or wrap each block in residual: […]"


# ---- how a finding says it

_BARE = 0.5  # up to here a network counts as one with skips


def _another_gradient(profile: GradientProfile, signals: Signals) -> str:
    story = f"after a small step the gradient is another (coherence {number(signals.coherence)})"
    return story if signals.bare <= _BARE else f"{story}, and little of it takes a skip"


def _growing_activations(profile: GradientProfile, signals: Signals) -> str:
    more = " or more" if signals.forward_growth >= CAPS.forward_growth else ""
    return f"activations grow {number(10**signals.forward_growth)} times{more}"


def _alike_inputs(profile: GradientProfile, signals: Signals) -> str:
    return f"{fraction(10**-signals.lost_inputs)} of the output tells inputs apart"


def _forgotten_past(profile: GradientProfile, signals: Signals) -> str:
    less = " or less" if signals.lost_past >= CAPS.lost_past else ""
    share = number(10**-signals.lost_past)
    return f"the sequence's first position gets {share}{less} of another's gradient"


def _decades(value: float, cap: float) -> str:
    """``4.9 decades``; ``8 or more decades`` at the cap, where the signal ends."""
    shown = f"{value:.2g}" if value < cap * (1 - 1e-9) else f"{cap:g} or more"
    return f"{shown} decade" if shown == "1" else f"{shown} decades"


class Cause(NamedTuple):
    """A signal that speaks against a network: in a few words, in a finding, and as a verdict."""

    short: Callable[[float], str]  # of the signal's value
    story: Callable[[GradientProfile, Signals], str]
    advice: Callable[[GradientProfile, Signals], str]
    place: Callable[[GradientProfile], RowProfile] = row_at_fault
    verdict: Verdict = Verdict.SHATTERED  # of a network that fails with this as its main cause


# Every signal of ``Signals``.
CAUSES = {
    "decay": Cause(
        lambda value: f"decay {_decades(value, CAPS.decay)}",
        lambda profile, signals: f"the gradient {shrinks(profile)}",
        lambda profile, signals: advice_for_small(profile),
        verdict=Verdict.VANISHING,
    ),
    "growth": Cause(
        lambda value: f"growth {_decades(value, CAPS.growth)}",
        lambda profile, signals: f"the gradient {grows(profile)}",
        lambda profile, signals: advice_for_large(profile),
        verdict=Verdict.EXPLODING,
    ),
    "forward_growth": Cause(
        lambda value: f"activations grow {_decades(value, CAPS.forward_growth)}",
        _growing_activations,
        lambda profile, signals: advice_for_large(profile),
        verdict=Verdict.EXPLODING,
    ),
    "lost_inputs": Cause(
        lambda value: f"inputs {_decades(value, CAPS.lost_inputs)} alike",
        _alike_inputs,
        _advice_for_alike,
    ),
    "lost_past": Cause(
        lambda value: f"past fades {_decades(value, CAPS.lost_past)}",
        _forgotten_past,
        _advice_for_forgotten,
        _recurrent_row,
        Verdict.VANISHING,
    ),
    "shattering": Cause(
        lambda value: f"shattering {number(value)}", _another_gradient, _advice_for_shattered
    ),
    "coherence": Cause(
        lambda value: f"coherence {number(value)}", _another_gradient, _advice_for_shattered
    ),
}


def because(cause: str, profile: GradientProfile, signals: Signals) -> tuple[str, str, RowProfile]:
    """What the signal called ``cause`` says, what mends it, and the row to point at."""
    words, profile = CAUSES[cause], without_time(profile)
    return words.story(profile, signals), words.advice(profile, signals), words.place(profile)
