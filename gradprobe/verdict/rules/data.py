"""Rules on what goes in, what the loss makes of what comes out, and single samples."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradprobe.measure.measurement import Cure
from gradprobe.measure.profile import GradientProfile
from gradprobe.numbers import fraction, number
from gradprobe.verdict.advice import at, cures
from gradprobe.verdict.report import Severity, Verdict
from gradprobe.verdict.rules.rule import Clue, Rule, Thresholds, at_output
from gradprobe.verdict.rules.targets import GUESS, LARGE, unscaled

# Tuned on 600 labelled networks that train; 6 of 600 others get an alarm (false_alarms.py).
_FLAT = 0.83  # share of a sigmoid's outputs; without a skip sound ones had 0 to 0.81, faulty 0.85
_SHIFT = 4.0  # RMS of a bias: a sigmoid's slope there is 0.02; torch's inits have 0.6 at most
_SILENT = 0.15  # share of samples; sound 0.1 at most, faulty 0.2 or more
# Factor across what stands behind the trunk: 3e-4 in front of the heads of BEiT and EVA, which
# are drawn at 1e-3 of the usual size; faulty ones 1e-6.
_BEHIND = 1e-4
# The same where the output's weights are the embedding's: 32 still learnt quickly, 137 did not.
_TIED = 40.0
_TOO_LARGE = ": the output has the weights of the embedding, which are too large for it"
_FLOOR = 0.2  # a cross entropy that cannot fall below; 0.13 of two classes
_LOST = 0.1  # share of the gradient's entries below float16's smallest number
_HALF = 1e-6  # RMS of a gradient's elements: from here down float16 has one digit or none
_TOLD = 0.9  # share of the samples' gradients in common: sound losses 0.68 at most
# Times the gradient of the comparison; of sound losses 16 at most, of faulty ones 74 and more: a
# PINN of Poisson's equation with 76 learns with it, and four times as fast without.
_DROWNED = 30.0
_LINEAR = 0.5  # share of a constant's loss; of XOR 1, of sin(x) over two periods 0.9
_MIXED = 1e-4  # share of a sample's gradient at other samples; sound 0 but for rounding


def zero_inputs(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The inputs are zero everywhere, so that no sample differs from another.

    The first layer's weights get a gradient of exactly zero, and with biases of zero so does
    everything. Look at the data: a mask, an integer division, a buffer that nobody filled.
    """
    if profile.around.inputs_zero:
        yield Clue("the inputs are all zero", "look at how the input data are made", None, 0.0)


def same_inputs(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """All samples of the batch are the same, and the loss wants other outputs for each.

    What is equal at the input is equal at the output. Look at how the data are made: an index that
    does not move, a buffer that is filled again, one sample that is expanded.
    Only a second look with your own loss finds it: `probe --deep`, or `check`.
    """
    alike = profile.further.alike
    if profile.around.inputs_same and not profile.around.inputs_zero and alike and alike < _TOLD:
        message = "all samples of the batch are the same, and the loss wants other outputs for each"
        yield Clue(message, "look at how the input data are made", None, 0.0)


def unscaled_inputs(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The inputs that the first weights read are much larger than 1, and nothing normalises them.

    Every init takes inputs of a size near 1 for granted. Raw pixels or raw features drive sigmoids
    and tanh flat, let the largest feature drown the others, and make each step overshoot.
    """
    rms, spread = profile.around.input_rms, profile.around.input_spread
    if rms is not None and math.isfinite(rms) and rms > LARGE:
        message = f"the inputs are not scaled: RMS {number(rms)} where the first weights read them"
        if spread is not None and spread > 10:
            message += f", features apart by a factor of {number(spread)}"
        yield Clue(message, cures("scale"), next(iter(profile.ran), None), rms, LARGE)


def flat(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Most outputs of a sigmoid or tanh are at an end of its range, where its slope is near 0.

    Such a unit is saturated: it passes no gradient back, and hardly ever leaves that end.
    """
    share, kind = profile.around.flat, profile.around.flat_kind
    if share >= _FLAT:
        message = f"saturated: {fraction(share)} of a {kind.lower()}'s outputs are flat"
        rows = profile.trunk
        large = (profile.around.input_rms or 0.0) > LARGE
        scale, shifts = ["scale"] * large, _shifts(profile)
        advice = cures(*scale, *shifts, at("gain", rows, 0.1), at("norm", rows))
        yield Clue(message, advice, None, share, _FLAT)


def _shifts(profile: GradientProfile) -> tuple[Cure, ...]:
    """A cure of biases that alone bring a sigmoid to an end of its range."""
    biases = [p for row in profile.ran for p in row.parameters if p.is_bias]
    large = tuple(p.name for p in biases if (p.norm or 0.0) / math.sqrt(p.size) > _SHIFT)
    return (Cure("zero bias", large),) if large else ()


def silent_samples(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Samples whose gradient is there at the output and exactly zero behind the last weights.

    A saturated sigmoid, a ReLU or a clamp at the output holds it back: nothing is learnt from them.
    So does a clamp in front of a logarithm, of what is no probability and may be below 0.
    """
    share, below = profile.around.silent, profile.around.below_zero
    if below >= _SILENT:
        message = f"{fraction(below)} of what a clamp in front of a logarithm gets is below 0"
        advice = "probabilities go into a logarithm: F.log_softmax, or logits and F.cross_entropy"
        yield Clue(f"{message}: no gradient passes", advice, at_output(profile), below, _SILENT)
    elif share is not None and share >= _SILENT:
        message = f"{fraction(share)} of the samples lose their gradient behind the last weights"
        names = {"Relu": "ReLU", "Sigmoid": "Sigmoid", "Tanh": "Tanh"}
        last = [names[loss.after] for loss in profile.around.losses if loss.after in names]
        off = "take the activation or the clamp off the output, or scale the inputs"
        mends = cures(Cure("drop", of=last[0]), "scale") if last else off
        yield Clue(message, mends, None, share, _SILENT)


def lost_behind(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The gradient is lost between the loss and the trunk: in the head or the output's activation.

    The norm at the trunk's last row ÷ that at the output. Reach does not see it, as it begins
    where the trunk ends.
    """
    output, trunk = profile.around.output_norm, profile.trunk
    # The last row may be a branch with a small factor, which a skip goes around.
    sizes = [row.gradient_norm or 0.0 for row in trunk]
    end = max(sizes) if sizes and sizes[-1] else 0.0
    if output and end and math.isfinite(output) and end / output < _BEHIND:
        message = f"the gradient shrinks to {number(end / output)} of itself behind the trunk"
        head = [row for row in profile.ran if row.parameters][-1:]
        yield Clue(message, cures(at("draw", head)), trunk[-1], end / output, _BEHIND)


def far_off(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The loss starts far above that of a constant guess, or its targets are far from 1 in size.

    A cross entropy should start near ln(classes), a squared error near the targets' variance. Far
    above, the first steps undo the init, and a usual learning rate overshoots.

    Where an embedding's weights are those of the output as well, as in language models, torch's
    init of an embedding makes logits of √width instead of 1: draw it at 0.02.
    """
    losses = profile.around.losses
    if told := unscaled(losses):
        yield told
        return
    bars = [_TIED if profile.around.tied and loss.target_rms is None else GUESS for loss in losses]
    ratios = [loss.times_guess or 0.0 for loss in losses]
    above = [pair for pair in zip(ratios, bars, strict=True) if pair[0] > pair[1]]
    if above:
        ratio, bar = max(above)
        blamed = _TOO_LARGE if bar == _TIED else ""
        message = f"the loss starts at {number(ratio)} times that of a constant guess{blamed}"
        yield Clue(message, _smaller(profile, bar == _TIED), None, ratio, bar)


def _smaller(profile: GradientProfile, tied: bool) -> str | tuple[Cure, ...]:
    """What brings the outputs down."""
    if tied:
        return "nn.init.normal_(embedding.weight, std=0.02), or weights of the output's own"
    rows = [row for row in profile.ran if row.parameters]
    return cures(at("draw", rows), at("gain", rows[-1:], 0.1), at("norm", rows[-1:]))


def half_precision(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Gradients in float16 that are below its smallest numbers, without a loss scale.

    float16 ends at 6e-8, and below 6e-5 loses digits. Training in it needs a scaled loss. More than
    a tenth of the entries that reach the rows may not be lost; ``--precision`` shows each row's.
    """
    if not profile.is_half:
        return
    advice = "scale the loss (torch.amp.GradScaler), or use bfloat16 or float32"
    if lost := _lost_in_float16(profile):
        share, advice = lost
        message = f"float16 loses {fraction(share)} of the gradient: it underflows to 0"
        yield Clue(message, advice, None, share, _LOST)
        return
    weights = [p for row in profile.rows if not row.level for p in row.parameters]
    weights = [p for p in weights if p.trainable and p.gradient_norm is not None and p.norm]
    weak = [p for p in weights if (p.gradient_norm or 0.0) / math.sqrt(p.size) < _HALF]
    if weak and len(weak) * 4 >= len(weights):
        share = len(weak) / len(weights)
        message = f"float16 holds no gradient of {fraction(share)} of the weights: it underflows"
        yield Clue(message, advice, None, share)


def _lost_in_float16(profile: GradientProfile) -> tuple[float, str] | None:
    """The share of the gradient's entries that float16 loses, if it is one to speak of, and what to
    do about it."""
    lost = [row.precision for row in profile.rows if row.precision and not row.level]
    total = sum(row.entries for row in lost)
    share = sum(row.float16 * row.entries for row in lost) / total if total else 0.0
    if share <= _LOST:
        return None
    scale = max(row.scale or math.inf for row in lost)
    if scale > min(row.ceiling for row in lost):
        return share, "no scale of the loss fits all rows: use bfloat16 or float32"
    by = f"scale the loss by {scale:,.0f} (torch.amp.GradScaler)"
    return share, f"{by}, or use bfloat16 or float32"


def mixed_samples(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """One sample's output depends on the other samples of its batch.

    A softmax, a norm or an attention over the batch's dimension, a reshape that cuts across
    samples, a recurrent layer without `batch_first`. The network answers another way in another
    batch. Graph networks, losses over pairs and BatchNorm are meant to and are left out.
    Only a second look finds it: `probe --deep`, or `check`.
    """
    share = profile.further.mixing
    if share is not None and share > _MIXED:
        message = f"samples mix: {fraction(share)} of an output's gradient is at other samples"
        advice = "look for dim=0, a missing batch_first=True, or a view/reshape across the batch"
        yield Clue(message, advice, None, share, _MIXED)


def step_too_large(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The learning rate that was given is above what gradient descent stands at the first step.

    With a curvature λ, steps of SGD above 2/λ grow instead of shrink (LeCun et al. 1998). Networks
    come back from up to twice that, where the curvature falls (Lewkowycz et al. 2020, arXiv
    2003.02218), so it is said from there on. λ is a lower bound: a smaller rate may diverge too.
    """
    curvature, rate = profile.further.curvature, profile.further.rate
    if curvature and rate and rate > 2 * (2 / curvature):
        message = f"lr={rate:g} is too large a step: SGD is stable up to {number(2 / curvature)}"
        advice = f"lr={1 / curvature:.1g}, a warm-up, or scaled inputs and targets"
        yield Clue(message, advice, None, rate, 4 / curvature)


def bounded_logits(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Logits between -1 and 1, of which no softmax makes a probability near 1: the loss stays up.

    A tanh in front of a cross entropy, or cosines of features and weights without a scale. With C
    classes the loss is never below ln(1 + (C - 1)/e²), which is 0.8 of 10 and 2.7 of 100 (Wang et
    al. 2017, NormFace, arXiv 1704.06369).
    """
    loss = max(profile.around.losses, key=lambda loss: loss.least, default=None)
    if loss and loss.least > _FLOOR:
        what = "a tanh makes the logits" if loss.after == "Tanh" else "the logits are cosines"
        message = f"{what}, from -1 to 1: the loss cannot fall below {number(loss.least)}"
        scale = "a scale in front of the loss: 16 * cosine, or cosine / 0.07"
        advice = cures(Cure("drop", of="Tanh")) if loss.after == "Tanh" else scale
        yield Clue(message, advice, at_output(profile), 0.0)


def dropped_output(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A dropout behind the last layer: it sets outputs to 0 at random, and the loss compares those.

    It belongs between layers, where the next one adds up what is left.
    """
    if any(loss.after == "Dropout" for loss in profile.around.losses):
        message = "a dropout stands behind the last layer: outputs are set to 0 at random"
        yield Clue(
            message, "take it away, or put it in front of the last layer", at_output(profile)
        )


def drowned(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A term of the loss has nearly all of its gradient, and it is not the one with the target.

    A sum over all elements beside a mean, as a KL divergence beside a mean squared error, or a
    penalty with a large weight: the steps lower that, and the target is learnt last or never. In a
    physics-informed network the residual drowns the boundary (Wang et al. 2021, arXiv 2001.04536).
    Only a second look with your own loss finds it: `probe --deep`, or `check`.
    """
    added = profile.further.added
    if added is not None and added > _DROWNED:
        message = "a term of the loss drowns the comparison with the target: "
        message += f"its gradient is {number(added)} times as large"
        advice = f"multiply it by {1 / added:.1g}, or make both sums over the same elements"
        yield Clue(message, advice, None, added, _DROWNED)


def linear_limit(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """No activation, and the targets are no linear function of the inputs: no weights fit them.

    Linear layers in a row are one linear layer, however many there are. The best one is found for
    this batch, and leaves more than half of the loss that a constant has.
    Only a second look with your own loss finds it: `probe --deep`, or `check`.
    """
    share = profile.further.linear
    if share is not None and share > _LINEAR:
        message = f"no activation between its {profile.around.straight} layers, and the best "
        message += f"linear fit leaves {fraction(share)} of a constant guess's loss"
        advice = "an activation between them: nn.ReLU() or another"
        yield Clue(message, advice, None, share, _LINEAR)


def two_values(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A BatchNorm over two values a channel, which are 1 and -1 behind it whatever goes in.

    So it is in a batch of two behind a linear layer or a global pool. What it puts out says only
    which of the two is larger, and where they are near each other the gradient grows beyond bounds.
    """
    size = profile.around.least_batched
    if size is not None and size <= 2:
        message = "a BatchNorm over two values a channel: they are 1 and -1 whatever goes in"
        advice = "a larger batch (--batch-size 8), or nn.GroupNorm, which needs none"
        yield Clue(message, advice, None, float(size))


_WEAK = Verdict.WEAK

RULES = (
    Rule("GP601", "zero-inputs", Severity.ERROR, zero_inputs, Verdict.DEAD),
    Rule("GP610", "same-inputs", Severity.WARNING, same_inputs, _WEAK),
    Rule("GP602", "unscaled-inputs", Severity.WARNING, unscaled_inputs, _WEAK),
    Rule("GP603", "saturated", Severity.WARNING, flat, _WEAK),
    Rule("GP604", "silent-samples", Severity.WARNING, silent_samples, _WEAK),
    Rule("GP605", "lost-behind", Severity.WARNING, lost_behind, _WEAK),
    Rule("GP606", "far-off", Severity.WARNING, far_off, _WEAK),
    Rule("GP607", "half-precision", Severity.WARNING, half_precision, _WEAK),
    Rule("GP608", "mixed-samples", Severity.WARNING, mixed_samples, _WEAK),
    Rule("GP609", "step-too-large", Severity.WARNING, step_too_large, _WEAK),
    Rule("GP611", "bounded-logits", Severity.WARNING, bounded_logits, _WEAK),
    Rule("GP612", "dropped-output", Severity.WARNING, dropped_output, _WEAK),
    Rule("GP613", "drowned", Severity.WARNING, drowned, _WEAK),
    Rule("GP614", "linear-limit", Severity.WARNING, linear_limit, _WEAK),
    Rule("GP615", "two-values", Severity.WARNING, two_values),
)
