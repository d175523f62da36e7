"""Rules on NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradprobe.measure.profile import GradientProfile, RowProfile
from gradprobe.numbers import all_finite
from gradprobe.verdict.report import Severity, Verdict
from gradprobe.verdict.rules.rule import Clue, Rule, Thresholds, listed, owners


def non_finite(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """NaN or infinity: the row that made the first one, not those that passed it on.

    On the way forward it is the first row whose output is not finite while its input is; on the way
    back the row behind which the gradient is still finite. A larger dtype shows whether it was an
    overflow (``--dtype float64``).
    """
    advice = "lower the scale of its init, or see whether --dtype float64 mends it"
    for owner, parameters in owners(profile):
        broken = [p.name for p in parameters if not math.isfinite(p.norm)]
        if broken:
            message = f"parameters hold NaN or infinity: {listed(broken)}"
            yield Clue(message, advice, owner, math.nan)
            return
    if not profile.input_finite:
        yield Clue("the input holds NaN or infinity", "look at the data", None, math.nan)
        return
    ran = [row for row in profile.rows if row.activation_rms is not None]
    bad = [row for row in ran if not all_finite(row.activation_rms)]
    if bad:
        inside = [row for row in bad if row.level and row.name.startswith(f"{bad[0].name}.")]
        row = inside[0] if inside else bad[0]
        message = f"row {row.name} ({row.kind}) makes the first NaN or infinity"
        yield Clue(message, advice, row, row.activation_rms)
        return
    if not math.isfinite(profile.loss):
        message = "the loss is NaN or infinite though every row's output is finite"
        yield Clue(
            message, "look at the loss, or at the layers behind the last row", None, profile.loss
        )
        return
    yield from _non_finite_gradient(profile)


def _non_finite_gradient(profile: GradientProfile) -> Iterator[Clue]:
    advice = "look for a square root or a logarithm near 0, or try --dtype float64"
    after: RowProfile | None = None
    for row in reversed([r for r in profile.rows if r.level == 0]):
        if row.gradient_norm is not None and not math.isfinite(row.gradient_norm):
            maker = f"row {after.name}" if after else "the loss"
            message = f"the backward pass through {maker} makes the first NaN or infinity"
            yield Clue(message, advice, after or row, row.gradient_norm)
            return
        after = row
    for owner, parameters in owners(profile):
        broken = [p.name for p in parameters if not all_finite(p.gradient_norm)]
        if broken:
            message = f"the gradient holds NaN or infinity: {listed(broken)}"
            yield Clue(message, advice, owner, math.nan)
            return


RULES = (Rule("GP301", "non-finite", Severity.ERROR, non_finite, Verdict.NON_FINITE),)
