"""A profile with a gradient of zero → why it is, and what to do."""

from __future__ import annotations

from gradprobe.measure.measurement import Cure
from gradprobe.measure.profile import GradientProfile, RowProfile
from gradprobe.numbers import fraction
from gradprobe.verdict.advice import at, cures
from gradprobe.verdict.rules.rule import listed

_ENDED = 0.5  # share of what a clamp gets, before it is named as why a gradient is zero
_OPEN = "take it out, widen it, or use what has a slope there: F.softplus, a GIoU for an IoU"
NO_LOSS = (
    "look at the loss: a constant, saturated, or the output against itself without detach(), as "
    "of old log-probabilities in a ratio"
)


def step_of(profile: GradientProfile) -> tuple[str, str] | None:
    """That a function with steps has no slope, and what to do, where there is one."""
    steps = profile.around.steps
    if not steps:
        return None
    reason = f"the slope of {listed(f'{step}()' for step in steps)} is zero"
    return reason, f"pass the gradient straight through: h + (h.{steps[0]}() - h).detach()"


def end_of(profile: GradientProfile) -> tuple[str, str] | None:
    """That a function holds back most of what it gets, and what to do, where there is one."""
    name, share = profile.around.ended or ("", 0.0)
    if share < _ENDED:
        return None
    if name == "grid_sample":
        reason = f"{fraction(share)} of the points that {name}() reads are outside -1 to 1"
        return reason, "coordinates from -1 to 1: 2 * pixel / (size - 1) - 1"
    reason = f"{fraction(share)} of what a {name}() gets is beyond its end, where its slope is zero"
    return reason, _OPEN


def scales_of(profile: GradientProfile) -> tuple[str, str] | None:
    """That the scales of norms are zero and stay so, as an init of all vectors with zeros does."""
    scales = [p for row in profile.ran for p in row.parameters if p.dimensions == 1]
    names = [p.name for p in scales if not p.is_bias and p.norm == 0 and p.gradient_norm == 0]
    if not names:
        return None
    return f"all-zero scales, {listed(names)}", "set them to 1: nn.init.ones_(norm.weight)"


def slope_of(row: RowProfile) -> str:
    """What is seen of a row that passes nothing on."""
    rectifier = "a dead ReLU, " if "ReLU" in row.contains else ""
    return f"{rectifier}its outputs are all zero" if row.zero_fraction == 1 else "its slope is zero"


def wakes(profile: GradientProfile, row: RowProfile) -> tuple[Cure, ...]:
    """What brings a dead row back: it dies of what stands in front of it."""
    before = profile.ran[: profile.ran.index(row) + 1]
    [front] = [r for r in before if r.parameters][-1:] or [row]
    biases = tuple(p.name for p in front.parameters if p.dimensions == 1 and p.norm)
    negative = any(p.high is not None and p.high <= 0 for p in front.parameters)
    zero_bias = [Cure("zero bias", biases[:1])] if biases else []
    draw = [at("draw", [front])] if negative else []
    return cures(*draw, *zero_bias, Cure("leaky", of="ReLU"), at("norm", [front]))
