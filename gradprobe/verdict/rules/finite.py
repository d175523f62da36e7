"""Rules on NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
_MASK = "leave a key unmasked in each row, or mask with -1e9 in place of -inf"
_ALONE = "a softmax over -inf alone, as of a sample that is all padding"
_HOLES = "look at the data: a missing value, or a division by a standard deviation of 0"
_ROOT = "a square root or a norm at 0"

# By torch's name of an operation: what it is then, and what mends it.
_MADE: Mapping[str, tuple[str, str | tuple[Cure, ...]]] = {
    "div": ("a division by zero", "keep it from 0: x / (y + 1e-8), or y.clamp(min=1e-8)"),
    **dict.fromkeys(
        ("log", "log2", "log10", "log1p", "xlogy"),
        (
            "a logarithm of 0 or less",
            "a loss on logits (F.cross_entropy, F.log_softmax), or x.clamp(min=1e-8).log()",
        ),
    ),
    **dict.fromkeys(
        ("exp", "expm1", "exp2", "sinh", "cosh"),
        (
            "an exponential that overflows",
            "subtract the maximum first (torch.logsumexp, F.log_softmax), or clamp what goes in",
        ),
    ),
    **dict.fromkeys(
        ("acos", "asin", "atanh", "acosh"),
        ("an inverse function at the end of its range", "clamp it: x.clamp(-1 + 1e-6, 1 - 1e-6)"),
    ),
    **dict.fromkeys(
        ("sqrt", "rsqrt", "std", "pow", "norm", "linalgvectornorm", "cdist", "euclideandist"),
        (_ROOT, cures("near zero")),
    ),
    **dict.fromkeys(("softmax", "logsoftmax"), (_ALONE, _MASK)),
    **dict.fromkeys(
        ("nlllossforward", "nllloss2dforward", "mean"),
        ("a mean over nothing", "see that each batch has targets that count (ignore_index, masks)"),
    ),
}


def _made(profile: GradientProfile, clue: Clue, backward: bool = False) -> Clue:
    """The clue with the operation that made the first NaN or infinity, where that is known."""
    first = profile.around.first_nan
    name = first.operation.replace("_", "").lower() if first else ""
    if first is None or first.backward != backward or name not in _MADE:
        return clue
    what, advice = _MADE[name]
    place = f", at {first.place}" if first.place else ""
    message = clue.message if backward else clue.message.replace("makes the", "has the")
    return clue._replace(message=f"{message}: {what}{place}", advice=advice)


def _parameters(profile: GradientProfile) -> Iterator[Clue]:
    for owner, parameters in owners(profile):
        if broken := [p.name for p in parameters if not math.isfinite(p.norm)]:
            message = f"parameters hold NaN or infinity: {listed(broken)}"
            yield Clue(
                message, "look at what wrote them: an init, a checkpoint, a step", owner, math.nan
            )


def _input(profile: GradientProfile) -> Iterator[Clue]:
    if not profile.input_finite:
        yield Clue("the input holds NaN or infinity", _HOLES, None, math.nan)


def _outputs(profile: GradientProfile) -> Iterator[Clue]:
    rows = [row for row in profile.rows if not all_finite(row.activation_rms)]
    if rows:
        inside = [row for row in rows if row.level and row.name.startswith(f"{rows[0].name}.")]
        row = inside[0] if inside else rows[0]
        message = f"row {row.name} ({row.kind}) makes the first NaN or infinity"
        advice = cures(at("gain", [row], 0.1), "float64")
        if profile.around.masked:
            yield Clue(f"{message}: {_ALONE}", _MASK, row, row.activation_rms)
            return
        yield _made(profile, Clue(message, advice, row, row.activation_rms))


def _loss(profile: GradientProfile) -> Iterator[Clue]:
    if not math.isfinite(profile.loss):
        message = "the loss is NaN or infinite though every row's output is finite"
        advice = "look at the loss, or at the layers behind the last row"
        if any(loss.kind == "CtcLoss" for loss in profile.around.losses):
            advice = "inputs as long as their targets or longer, with a step more for each repeat"
        yield _made(profile, Clue(message, advice, None, profile.loss))


def _gradients(profile: GradientProfile) -> Iterator[Clue]:
    after: RowProfile | None = None
    for row in reversed([row for row in profile.rows if row.level == 0]):
        if not all_finite(row.gradient_norm):
            maker = f"row {after.name}" if after else "the loss"
            message = f"the backward pass through {maker} makes the first NaN or infinity"
            clue = Clue(message, _BACKWARD, after or row, row.gradient_norm)
            yield _made(profile, clue, backward=True)
        after = row


def _parameters_gradients(profile: GradientProfile) -> Iterator[Clue]:
    for owner, parameters in owners(profile):
        if broken := [p.name for p in parameters if not all_finite(p.gradient_norm)]:
            message = f"the gradient holds NaN or infinity: {listed(broken)}"
            yield _made(profile, Clue(message, _BACKWARD, owner, math.nan), backward=True)


RULES = (Rule("GP301", "non-finite", Severity.ERROR, non_finite, Verdict.NON_FINITE),)
