"""Rules on what is worth knowing and not wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradprobe.measure.measurement import Cure
from gradprobe.measure.obstacles import is_cut
from gradprobe.measure.profile import GradientProfile, RowProfile, RowStatus
from gradprobe.verdict.advice import cures
from gradprobe.verdict.report import Severity, Training
from gradprobe.verdict.rules.rule import Clue, Rule, Thresholds, listed, wakes_later

SAME = 1 - 1e-5  # share of the samples' gradients that is common to all


def useless_bias(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A bias right before a normalisation over the batch, which subtracts it again.

    Its gradient is zero up to rounding (about 1e-9), so it never learns. That is no vanishing
    gradient; the bias is merely of no use: ``bias: false`` saves its memory.
    """
    biases = [(r, p.name) for r in _outer(profile) for p in r.parameters if p.before_norm]
    if biases:
        names = listed(name for _, name in biases)
        message = f"a bias before a normalisation does nothing: {names}"
        advice = cures(Cure("no bias", tuple(name for _, name in biases)))
        yield Clue(message, advice, biases[0][0])


# What is said of a weight that was set anew, by whether it was only near zero.
_STARTS = {
    False: ("starts at zero, drawn at random", "nothing to do: it is alive after one step"),
    True: ("starts near zero, set to 0.1", "nothing to do: an optimizer soon makes it larger"),
}


def zero_initialised(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A weight that starts at zero with a gradient that is not: alive after the first step.

    A zero-initialised residual branch, head or LoRA matrix gives a gradient of exactly zero to what
    lies behind it, at the first step only. That is not dead, and for residual branches it is good
    practice: the network starts as the identity, and depth cannot hurt.

    Where such a weight hides the whole network, as a head of zeros does, it is drawn at random to
    see what is behind it; the message says so, and the verdict is that of the network so drawn. So
    is a gain near zero, as of a layer scale at 1e-6, that a class token reads all else through: it
    is set to 0.1, which an optimizer soon comes to.
    """
    owned = [(row, p) for row in _outer(profile) for p in row.parameters]
    for near, (start, advice) in _STARTS.items():
        if names := [name for name in profile.redrawn if (name in profile.near_zero) is near]:
            row = next((row for row, p in owned if p.name in names), None)
            yield Clue(f"{start} to see behind it: {listed(names)}", advice, row)
    weights = [(row, p.name) for row, p in owned if p.wakes_up]
    if weights:
        message = f"zero at the start, alive after one step: {listed(name for _, name in weights)}"
        yield Clue(message, "nothing to do: zero gradients behind it are meant", weights[0][0])


def unseen(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Rows whose weights get a gradient though the row itself could not be followed.

    Its module was never called (``F.linear(x, self.layer.weight)``, a scripted or compiled model),
    or it puts out no floating point tensor, so there is no output whose gradient could be shown.
    """
    hidden = (RowStatus.NOT_RUN, RowStatus.NO_TENSOR)
    rows = [row for row in _outer(profile) if row.status in hidden]
    rows = [row for row in rows if row.weight_gradient_norm is not None]
    if rows:
        message = f"could not be followed: {listed(row.name for row in rows)}"
        advice = "their weights are measured; for their outputs, call them as modules"
        yield Clue(message, advice, rows[0])


def unweighed(profile: GradientProfile, training: Training) -> Iterator[Clue]:
    """There is no probability that the network trains, so that only the bands of reach judge it.

    Nothing can be weighed where there are fewer than two rows to compare or one sample in the
    batch, where an end of the trunk has no gradient, where BatchNorm has fewer than 32 values
    to normalise a channel by, in a dtype that is too coarse for a small step, or where the
    second look failed; the message says which.
    Without `--deep`, or with `check --no-deep`, reach alone is what is asked for.
    """
    reach = profile.reach
    silent = is_cut(profile) or wakes_later(profile)
    if training.reason and (silent or (reach and math.isfinite(reach))):
        judge = "judged by reach alone" if reach else "not judged"
        yield Clue(f"{judge}: {training.reason}", "nothing to do, if it is meant")


def alike_samples(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Where all outputs are the same, the loss pulls every sample in the same direction.

    So it does not tell the samples apart: one label for all, targets that were averaged or
    broadcast. An adversarial loss does so too and is meant to.
    """
    alike = profile.further.alike
    if alike is not None and alike > SAME:
        message = "the loss does not tell samples apart: at equal outputs all get one gradient"
        yield Clue(message, "look at labels and their shape, if it is not meant", value=alike)


def warned(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """What torch itself warned of while the model and its loss ran.

    A warning that comes from the model's own lines is kept: gradprobe raises none of its own there.
    """
    for warning in profile.around.warnings:
        yield Clue(f"torch warns: {warning}", "look at the line that it names")


def straight(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A network without an activation: linear layers in a row are one linear layer.

    It learns what a linear or logistic regression does, and no more, however deep it is.
    """
    layers = profile.around.straight
    if layers > 1 and profile.around.losses:
        message = f"no activation between its {layers} layers: together they are one linear layer"
        yield Clue(message, "an activation between them, nn.ReLU() or another, if it is not meant")


def shared(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A list with one layer several times, so that its weights are used as often: `[layer] * n`.

    Where as many layers of their own are meant, make each: `[Layer() for _ in range(n)]`.
    """
    for name, times in profile.around.shared:
        message = f"{name or 'the model'} holds one and the same layer {times} times"
        yield Clue(message, "[Layer() for _ in range(n)], if layers of their own are meant")


def _outer(profile: GradientProfile) -> list[RowProfile]:
    """The rows that are not inside another one."""
    return [row for row in profile.rows if row.level == 0]


RULES = (
    Rule("GP401", "useless-bias", Severity.INFO, useless_bias),
    Rule("GP402", "zero-initialised", Severity.INFO, zero_initialised),
    Rule(
        "GP403",
        "unused-ignore",
        Severity.WARNING,
        text="""
        The spec says to ignore a rule that finds nothing any more.

        What was ignored has been mended, so the ignore would only hide the next one: delete it.
        """,
    ),
    Rule("GP404", "unseen", Severity.INFO, unseen),
    Rule("GP405", "unweighed", Severity.INFO, weigh=unweighed),
    Rule("GP406", "alike-samples", Severity.INFO, alike_samples),
    Rule("GP407", "torch-warning", Severity.INFO, warned),
    Rule("GP408", "no-activation", Severity.INFO, straight),
    Rule("GP409", "shared-layers", Severity.INFO, shared),
)
