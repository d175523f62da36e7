"""Rules on NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from gradprobe.measure.measurement import Cure
from gradprobe.measure.profile import GradientProfile, RowProfile
from gradprobe.numbers import all_finite
from gradprobe.verdict.advice import at, cures
from gradprobe.verdict.report import Severity, Verdict
from gradprobe.verdict.rules.rule import Clue, Rule, Thresholds, listed, owners


def non_finite(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """NaN or infinity: the row that made the first one, not those that passed it on.

    On the way forward it is the first row whose output is not finite while its input is; on the way
    back the row behind which the gradient is still finite. A larger dtype shows whether it was an
    overflow (``--dtype float64``).
    """
    # The order of a step: what is not finite early is why the rest is not.
    ways = (_parameters, _input, _outputs, _loss, _gradients, _parameters_gradients)
    yield from islice((clue for way in ways for clue in way(profile)), 1)


_BACKWARD = cures("near zero", "float64")


def _parameters(profile: GradientProfile) -> Iterator[Clue]:
    for owner, parameters in owners(profile):
        if broken := [p.name for p in parameters if not math.isfinite(p.norm)]:
            message = f"parameters hold NaN or infinity: {listed(broken)}"
            yield Clue(
                message, "look at what wrote them: an init, a checkpoint, a step", owner, math.nan
            )


def _input(profile: GradientProfile) -> Iterator[Clue]:
    if not profile.input_finite:
        yield Clue("the input holds NaN or infinity", "look at the data", None, math.nan)


def _outputs(profile: GradientProfile) -> Iterator[Clue]:
    rows = [row for row in profile.rows if not all_finite(row.activation_rms)]
    if rows:
        inside = [row for row in rows if row.level and row.name.startswith(f"{rows[0].name}.")]
        row = inside[0] if inside else rows[0]
        message = f"row {row.name} ({row.kind}) makes the first NaN or infinity"
        advice: str | tuple[Cure, ...] = cures(at("gain", [row], 0.1), "float64")
        if profile.around.masked:
            message += ": a softmax over -inf alone, as of a sample that is all padding"
            advice = "leave a key unmasked in each row, or mask with -1e9 in place of -inf"
        yield Clue(message, advice, row, row.activation_rms)


def _loss(profile: GradientProfile) -> Iterator[Clue]:
    if not math.isfinite(profile.loss):
        message = "the loss is NaN or infinite though every row's output is finite"
        advice = "look at the loss, or at the layers behind the last row"
        yield Clue(message, advice, None, profile.loss)


def _gradients(profile: GradientProfile) -> Iterator[Clue]:
    after: RowProfile | None = None
    for row in reversed([row for row in profile.rows if row.level == 0]):
        if not all_finite(row.gradient_norm):
            maker = f"row {after.name}" if after else "the loss"
            message = f"the backward pass through {maker} makes the first NaN or infinity"
            yield Clue(message, _BACKWARD, after or row, row.gradient_norm)
        after = row


def _parameters_gradients(profile: GradientProfile) -> Iterator[Clue]:
    for owner, parameters in owners(profile):
        if broken := [p.name for p in parameters if not all_finite(p.gradient_norm)]:
            message = f"the gradient holds NaN or infinity: {listed(broken)}"
            yield Clue(message, _BACKWARD, owner, math.nan)


RULES = (Rule("GP301", "non-finite", Severity.ERROR, non_finite, Verdict.NON_FINITE),)
