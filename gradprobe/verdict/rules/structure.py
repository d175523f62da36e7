"""Rules on how a network is put together: activations in the wrong place, weights that stay put."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradprobe.measure.measurement import Cure
from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowProfile
from gradprobe.numbers import fraction, number, plural
from gradprobe.verdict.advice import cures
from gradprobe.verdict.report import Severity, Verdict
from gradprobe.verdict.rules.rule import Clue, Rule, Thresholds, at_output, listed

_GROWS = 1e3  # times the first step's RMS, at the least
_ALIKE = 0.05  # input dependence: sound rows keep 0.1 or more
_SHARP = 0.03  # entropy of attention: below it 0 of 6 labelled networks trained, to 0.1 5 of 8
# Units: a layer with 0.5, 1, 2 and 4 left came to 39, 78, 88 and 93 % on digits; p = 0.8 and more.
_KEPT, _KEPT_SHARE = 2.0, 0.2
_BINARY = "BinaryCrossEntropyWithLogits"
_LOGITS = ("NllLoss", "NllLoss2D", "CrossEntropy", _BINARY)
_LENGTHS = ("original0", "weight_g")  # torch's names for what weight_norm holds beside directions
_CLIPPED = {"Relu": "ReLU", "Hardtanh": "ReLU6"}


def softmax_of_one(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A softmax over a single unit, which is 1 whatever goes in: nothing can be learnt.

    With one output per sample use a sigmoid, best inside the loss.
    """
    if profile.around.softmax_of_one:
        message = "a softmax over one unit is always 1"
        advice = "one output: drop the softmax and use nn.BCEWithLogitsLoss() (or a sigmoid)"
        yield Clue(message, advice, at_output(profile), 0.0)


def twice(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A softmax or sigmoid in front of a loss that takes one itself, or a log that is missing.

    `cross_entropy` takes logits. Behind a softmax they are between 0 and 1, so that the loss can
    hardly fall, and its gradient is small. `nll_loss`, `kl_div` and `ctc_loss` take the log of a
    softmax.
    """
    for loss in profile.around.losses:
        if loss.kind in _LOGITS and loss.after in ("Softmax", "Sigmoid"):
            name = loss.after.lower()
            own = "sigmoid" if loss.kind == _BINARY else "softmax"
            message = f"a {name} goes into a loss that takes a {own} itself"
            advice: str | tuple[Cure, ...] = cures(Cure("drop", of=loss.after))
            if own == "softmax" and not loss.normalised:
                message = f"a {name} goes into nll_loss, which takes log-probabilities"
                advice = "use F.log_softmax, or logits and F.cross_entropy"
            yield Clue(message, advice, at_output(profile))
            return
        if loss.raw:
            dim = "over another dimension than the classes" if loss.normalised else "missing"
            name = {"KlDiv": "kl_div", "CtcLoss": "ctc_loss"}.get(loss.kind, "nll_loss")
            message = f"{name} takes log-probabilities over the classes: log_softmax is {dim}"
            advice = "F.log_softmax(x, dim=1), or logits and F.cross_entropy"
            yield Clue(message, "F.log_softmax(x, dim=2)" if loss.kind == "CtcLoss" else advice)
            return


def below_zero(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A log-softmax in front of a binary cross entropy, which takes logits.

    All of its outputs are below 0, so that no probability comes above one half.
    """
    if any(loss.kind == _BINARY and loss.normalised for loss in profile.around.losses):
        message = "a log_softmax goes into a loss that takes a sigmoid itself: none is above 1/2"
        yield Clue(message, "logits, and no log_softmax", at_output(profile))


def clipped_logits(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A ReLU as the last layer before a cross entropy: no logit can be below 0.

    A logit that is 0 for every sample gets no gradient, and a class can never be ruled out.
    """
    ends = [loss.after for loss in profile.around.losses if loss.kind in _LOGITS]
    if name := next((_CLIPPED[end] for end in ends if end in _CLIPPED), None):
        message = f"a {name} makes the logits: those at its end get no gradient, as all below 0"
        yield Clue(message, cures(Cure("drop", of=name)), at_output(profile))


def out_of_range(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Targets that the output's activation cannot reach: a sigmoid gives 0 to 1, tanh -1 to 1.

    What is outside is never fitted; the units that try end up flat. A binary cross entropy takes
    targets from 0 to 1: beyond them it has no least value, and falls below 0.
    """
    for loss in profile.around.losses:
        if loss.outside > 0.01 and loss.kind.startswith("Binary"):
            message = f"{fraction(loss.outside)} of the targets are out of the range 0 to 1 that a "
            advice = "targets from 0 to 1: y / 255 of pixels, (y + 1) / 2 of -1 and 1"
            yield Clue(f"{message}binary cross entropy takes", advice, None, loss.outside)
        elif loss.outside > 0.01:
            name = {"Relu": "ReLU"}.get(loss.after, loss.after)
            shown = name if name == "ReLU" else name.lower()
            message = f"{fraction(loss.outside)} of the targets are out of the {shown}'s range"
            mends = cures(Cure("drop", of=name), "scale targets")
            yield Clue(message, mends, at_output(profile), loss.outside)


def norm_of_one(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A normalisation over one element, or two, which puts out the same numbers whatever goes in.

    One element less its own mean is 0, and two are 1 and -1. `nn.LayerNorm(1)`, or over a dimension
    of size 1, does so; `nn.GroupNorm` with a group for each channel or two does so behind a global
    pool.
    """
    size = profile.around.least_normalised
    if size is not None and size <= 2:
        always = "one element is always its bias" if size < 2 else "two elements is always 1 and -1"
        message = f"a norm over {always}, whatever goes in: nothing passes it"
        advice = "nn.LayerNorm over the features, the dimension with more than two elements; "
        advice += "nn.GroupNorm with fewer groups"
        yield Clue(message, advice, None, 0.0)


def softmax_between(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A softmax as the activation between two linear layers.

    Its outputs add up to 1, so each is about 1/width, and its slope is smaller still: the gradient
    shrinks by about the width at each.
    """
    count = profile.around.softmax_between
    if count:
        message = f"a softmax between layers ({count} of them): its slope is about 1/width"
        yield Clue(message, cures(Cure("between", of="Softmax")), None, float(count))


def zero_weights(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Weights that are all zero and never wake up: each has nothing to learn from the others.

    One zero weight wakes up at the first step. Two of them in a row, without a bias between them,
    hold each other: what the second reads is zero, and what comes back to the first is.
    """
    weights = [(row, p) for row, p in _weights(profile) if p.norm == 0 and p.gradient_norm == 0]
    if profile.still_zero is not None:
        weights = [(row, p) for row, p in weights if p.name in profile.still_zero]
    if weights and not profile.around.inputs_zero:
        names = listed(p.name for _, p in weights)
        message = f"all-zero weights that no step changes: {names}"
        advice = cures(Cure("draw", tuple(p.name for _, p in weights)))
        yield Clue(message, advice, weights[0][0], 0.0)


def symmetric(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Units whose weights are the same and stay the same: a layer of one unit, whatever its width.

    With a constant init (`ones_`, `constant_`) in two layers in a row, every unit gets the same
    inputs and the same gradient. Draw the weights at random. The deviations of weights that are
    drawn anew at each pass, as in a Bayesian layer, may be constant: their means are not.
    """
    weights = _weights(profile)
    drawn = {(p.name.rpartition(".")[0], p.size) for _, p in weights if p.low != p.high}
    constant = [p for _, p in weights if p.norm and p.low is not None and p.low == p.high]
    constant = [p for p in constant if (p.name.rpartition(".")[0], p.size) not in drawn]
    if len(constant) >= 2 and len(constant) * 2 >= len(weights):
        row = next(row for row, p in weights if p is constant[0])
        message = f"units are identical: constant weights in {listed(p.name for p in constant)}"
        yield Clue(message, cures(Cure("draw", tuple(p.name for p in constant))), row, 1.0)


def unowned(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Tensors that get a gradient and are not in `model.parameters()`: no optimizer moves them.

    Layers in a plain Python list or dictionary are not registered, nor is a tensor that is no
    `nn.Parameter`. They are not moved to a device either, nor saved.
    """
    names = profile.around.unowned
    if names:
        message = f"not in model.parameters(), so no optimizer trains them: {listed(names)}"
        advice = "register them: nn.ModuleList / nn.ModuleDict, nn.Parameter, or register_parameter"
        yield Clue(message, advice, None, float(len(names)))


def one_sided(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A row with weights of one sign behind which all inputs look alike.

    Sums with positive weights are nearly the same for every sample, and grow with the width.
    """
    for row in profile.ran:
        has = row.input_dependence
        signs = any(_is_matrix(p) and _one_sign(p) for p in row.parameters)
        if has and has < _ALIKE and signs and "Embedding" not in row.contains:
            message = f"behind row {row.name} all samples are alike ({fraction(has)} tells them "
            message += "apart): its weights all have the same sign"
            signed = tuple(p.name for _, p in _weights(profile) if _one_sign(p))
            yield Clue(message, cures(Cure("draw", signed)), row, has, _ALIKE)
            return


def growing_state(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The state of a loop grows from step to step, or would with slightly larger weights.

    A ReLU or a linear activation in the cell lets it: tanh holds the state between -1 and 1. A
    state that only adds up grows as the number of steps; ten times that is a product. A second look
    tries weights half as large again, as some hundred steps of training make them.
    """
    larger = "with weights 1.5 times as large "
    for state, when in ((profile.around.state, ""), (profile.further.state, larger)):
        threshold = max(_GROWS, 10.0 * state.steps) if state else math.inf
        if state and state.growth > threshold:
            rows = [r for r in profile.ran if any(p.name == state.weight for p in r.parameters)]
            message = f"the state has no bound: {when}it grows {number(state.growth)} times over "
            message += f"{state.steps} steps of {state.weight}"
            advice = "a bounded activation (tanh) in the cell, LayerNorm in it, or a smaller init"
            yield Clue(message, advice, next(iter(rows), None), state.growth, threshold)
            return


def broadcast(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The loss compares the output of each sample with the target of every sample.

    Outputs of shape (n, 1) and targets of shape (n,) make n × n differences. All outputs are drawn
    to the mean of the targets, and the loss stops at their variance.
    """
    heard = any("Using a target size" in warning for warning in profile.around.warnings)
    if heard or any(loss.broadcast for loss in profile.around.losses):
        message = "outputs and targets differ in shape: each output is held against every target"
        advice = "y.view_as(output), y.unsqueeze(1), or output.squeeze(1), before the loss"
        yield Clue(message, advice)


def idle_output(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A column of the output from which no weight gets any gradient: nothing can be learnt there.

    Of its gradient exactly nothing arrives: a clamp, a ReLU, a round or a detach() behind the last
    layer. Only a second look finds it: `probe --deep`, or `check`.
    """
    idle, columns = profile.further.idle, profile.further.columns
    if idle and len(idle) * 20 >= columns and profile.reach != 0:
        which = listed(str(column) for column in idle)
        message = f"{plural(len(idle), 'column')} of the output ({which}) without any effect: no "
        message += "weight gets a gradient from there"
        advice = "look for a clamp, a ReLU, a round or a detach() behind the last layer"
        yield Clue(message, advice, at_output(profile), len(idle) / columns)


def idle_norm(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """BatchNorm in eval mode before any training: it is the identity, and normalises nothing.

    Its running statistics are still those that it was made with, mean 0 and variance 1, and eval
    mode goes by them. What the network does without its norms says nothing about its training.
    """
    names = profile.around.idle_norms
    if names:
        message = f"in eval mode with untrained statistics, so the identity: {listed(names)}"
        yield Clue(message, "probe in train mode (model.train(), --train-mode), or load weights")


def sharp_attention(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """An attention whose queries each look at one key alone, before any training.

    Its softmax is saturated: next to no gradient comes through to queries and keys, which stay as
    they are. The scores are too large: an init of queries and keys that is, or a scale that is
    missing. `--attention` shows the entropy of each row.
    """
    entropy = profile.around.entropy
    if entropy is not None and entropy < _SHARP:
        message = f"an attention is sharp: its weights have {fraction(entropy)} of the entropy "
        message += "of equal ones"
        advice = "scale the scores by 1/sqrt(head width), or lower the init of queries and keys"
        yield Clue(message, advice, None, entropy, _SHARP)


def nothing_kept(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A dropout that leaves less than two units of a sample: what is left is noise.

    The argument of `nn.Dropout` is the share that is dropped, not the share that is kept.
    """
    units, width = profile.around.dropped or (_KEPT, 0)
    if units < min(_KEPT, _KEPT_SHARE * width):
        message = f"a dropout leaves {number(units)} of {width} units of a sample"
        advice = "nn.Dropout(0.1 to 0.5): its argument is the share that is dropped"
        yield Clue(message, advice, None, units, _KEPT)


def no_second_derivative(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A second derivative of the network with respect to its inputs, which is zero everywhere.

    A network of ReLU is linear piece by piece, so that u'' is 0 wherever it is defined, whatever
    the weights are. What the loss makes of it, as a differential equation's residual, is a
    constant.
    """
    if kink := profile.around.kink:
        message = "a second derivative of the network is 0 everywhere: it is piecewise linear"
        message += f", by {kink}"
        yield Clue(message, "a smooth activation: nn.Tanh(), nn.GELU() or nn.SiLU()", None, 0.0)


def detached_state(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A state that goes from step to step without its gradient, and of which the last alone counts.

    `detach()`, `.data` or NumPy between all steps of a loop: what the earlier steps do is never
    trained. Cut between batches, or every so many steps. Steps that are only to give a value, as
    those of a rollout, belong in `torch.no_grad()`: they are not named.
    Only a second look finds it: `probe --deep`, or `check`.
    """
    if profile.further.detached:
        name, steps = profile.further.detached
        message = f"no gradient goes from step to step: all {steps} calls of {name} read a "
        message += "detached state, and the last alone is trained"
        row = next((row for row in profile.ran if row.module == name), None)
        yield Clue(message, "hand the state on as it is: no detach(), .data or NumPy", row, 0.0)


def _weights(profile: GradientProfile) -> list[tuple[RowProfile, ParameterProfile]]:
    """The weights that are trained, with their rows."""
    rows = [row for row in profile.rows if not row.level]
    return [(r, p) for r in rows for p in r.parameters if p.trainable and _is_matrix(p)]


def _is_matrix(parameter: ParameterProfile) -> bool:
    """Whether it is one, and not the lengths that weight normalisation holds beside its rows."""
    return parameter.dimensions > 1 and parameter.name.rpartition(".")[2] not in _LENGTHS


def _one_sign(parameter: ParameterProfile) -> bool:
    """Whether it is one and not by chance, as a few elements may be."""
    low, high = parameter.low, parameter.high
    if low is None or high is None or parameter.size < 16:
        return False
    return parameter.norm > 0 and low * high >= 0


_WEAK = Verdict.WEAK

RULES = (
    Rule("GP701", "softmax-of-one", Severity.ERROR, softmax_of_one, Verdict.DEAD),
    Rule("GP702", "softmax-twice", Severity.WARNING, twice, _WEAK),
    Rule("GP703", "clipped-logits", Severity.WARNING, clipped_logits, _WEAK),
    Rule("GP704", "out-of-range", Severity.WARNING, out_of_range, _WEAK),
    Rule("GP705", "softmax-between", Severity.WARNING, softmax_between, _WEAK),
    Rule("GP706", "zero-weights", Severity.ERROR, zero_weights, Verdict.DEAD),
    Rule("GP707", "symmetric", Severity.WARNING, symmetric, _WEAK),
    Rule("GP708", "unowned", Severity.ERROR, unowned, Verdict.DISCONNECTED),
    Rule("GP709", "one-sided", Severity.WARNING, one_sided, _WEAK),
    Rule("GP710", "growing-state", Severity.WARNING, growing_state, _WEAK),
    Rule("GP711", "broadcast", Severity.WARNING, broadcast, _WEAK),
    Rule("GP712", "idle-output", Severity.WARNING, idle_output, _WEAK),
    Rule("GP713", "idle-norm", Severity.WARNING, idle_norm),
    Rule("GP714", "sharp-attention", Severity.WARNING, sharp_attention, _WEAK),
    Rule("GP715", "norm-of-one", Severity.WARNING, norm_of_one, _WEAK),
    Rule("GP716", "nothing-kept", Severity.WARNING, nothing_kept, _WEAK),
    Rule("GP717", "below-zero", Severity.WARNING, below_zero, _WEAK),
    Rule("GP718", "no-second-derivative", Severity.WARNING, no_second_derivative, _WEAK),
    Rule("GP719", "detached-state", Severity.WARNING, detached_state, _WEAK),
)
