"""Rules on parameters that no gradient reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowProfile, RowStatus, Use
from gradprobe.verdict.report import Severity, Verdict
from gradprobe.verdict.rules.rule import (
    Clue,
    Rule,
    Thresholds,
    cut_row,
    listed,
    owners,
    ran,
)
from gradprobe.verdict.rules.stuck import of_a_state, off_everywhere, off_in_some
from gradprobe.verdict.rules.zero import NO_LOSS, end_of, scales_of, slope_of, step_of, wakes

Owned = tuple[RowProfile | None, ParameterProfile]  # a parameter, with its row if it has one


def dead(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A gradient of exactly zero, where it did not underflow and no zero-initialised weight is why.

    A row whose outputs are zero for every sample (a dead ReLU) passes nothing back, and nothing
    upstream of it ever changes. Weights with a gradient of exactly zero are stuck in the same way.
    A smaller learning rate does not help: the init, the biases or the activation must change.
    What is zero in one batch or at one draw alone, as behind a dropped path, is not dead.
    """
    rows, cut, step = ran(profile), cut_row(profile), step_of(profile)
    if rows and rows[-1].gradient_norm == 0:
        reason, advice = step or end_of(profile) or ("", NO_LOSS)
        message = f"the loss passes no gradient on to row {rows[-1].name}"
        yield Clue(f"{message}: {reason}" if reason else message, advice, rows[-1], 0.0)
    elif cut:
        told = step or scales_of(profile) or (None if cut.zero_fraction == 1 else end_of(profile))
        reason, wake = told or (slope_of(cut), wakes(profile, cut))
        yield Clue(f"no gradient passes row {cut.name}: {reason}", wake, cut, 0.0)
    else:
        yield from _stuck(profile)


def _stuck(profile: GradientProfile) -> Iterator[Clue]:
    """Rows that get a gradient of which exactly nothing arrives at a weight."""
    for row, names in off_everywhere(profile):
        message = f"exactly zero gradient: {listed(names)}"
        advice = "its inputs or its outputs are zero for every sample: look for a dead ReLU"
        if step := step_of(profile):
            message, advice = f"{message}: {step[0]}", step[1]
        elif profile.around.entropy is not None:
            advice += ", or an attention mask the wrong way round, which leaves the padding alone"
        yield Clue(message, advice, row, 0.0)


def disconnected(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Parameters that get no gradient, because no path leads from the loss to them.

    Not a small gradient and not zero: autograd found no path. Either the loss leaves out the output
    that they feed, or something on the way cut the graph: ``detach()``, ``.data``,
    ``torch.no_grad()``, a conversion to NumPy, an argmax. What was frozen by ``requires_grad =
    False`` does not count, nor what the forward pass never used: other rules tell them.

    A reentrant checkpoint (``use_reentrant=True``) passes no gradient on where no input of its
    own requires one, as behind a frozen embedding.
    """
    lost = [(row, p) for row, p in _lost(profile) if p.use is not Use.IDLE]
    lost = [(row, p) for row, p in lost if not _ends_a_stack(profile, row, p)]
    cut = [(row, p) for row, p in lost if not p.unread and not _is_unused(row, p)]
    cut = [(row, p) for row, p in cut if p.name not in profile.not_read]
    reason, advice = _CUT[profile.cut_checkpoint]
    yield from _without_gradient(cut, reason, advice)
    for output in dict.fromkeys(p.unread for _, p in lost if p.unread):
        left_out = [(row, p) for row, p in lost if p.unread == output]
        advice = "add that output to the loss, or freeze what feeds it alone"
        yield from _without_gradient(left_out, f"the loss leaves out {output}", advice)


def unused(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Parameters that the forward pass never used: a mask token, a head that this call leaves out.

    Or that the loss does not depend on, whatever they are: the query of a stream whose last output
    nobody reads, or what the last block of a stack would hand on to a next one. Many libraries'
    models have some by design. An optimizer leaves them alone, but DistributedDataParallel stops at
    the second step ("Expected to have finished reduction") unless it is told
    `find_unused_parameters=True`. A layer that somebody forgot to call looks the same.
    """
    lost = [(row, p) for row, p in _lost(profile) if p.use is not Use.IDLE]
    ends = [(row, p) for row, p in lost if _ends_a_stack(profile, row, p)]
    rest = [(row, p) for row, p in lost if not p.unread and (row, p) not in ends]
    parameters = [(row, p) for row, p in rest if _is_unused(row, p)]
    advice = "delete, freeze or use them; DistributedDataParallel: find_unused_parameters=True"
    yield from _without_gradient(parameters, "never used in the forward pass", advice)
    by_name = {p.name: (row, p) for row, own in owners(profile) for p in own}
    unread = [by_name[name] for name in profile.not_read if name in by_name]
    told = parameters + ends
    unread = [(row, p) for row, p in unread if not of_a_state(p) and (row, p) not in told] + ends
    advice = "nothing to do, if what they put out is meant to be thrown away"
    yield from _without_gradient(unread, "the loss does not depend on them", advice)


# What cuts a graph, and what mends it; by whether a reentrant checkpoint does.
_CUT = {
    False: (
        "the graph is cut",
        "look for detach(), .data, no_grad() or argmax between them and the loss, or for an "
        "output that nothing reads; straight through a codebook or threshold: z + (q - z).detach()",
    ),
    True: (
        "the graph is cut by a reentrant checkpoint whose inputs require no gradient",
        "checkpoint(…, use_reentrant=False), in transformers gradient_checkpointing_enable("
        "gradient_checkpointing_kwargs={'use_reentrant': False}); or "
        "model.enable_input_require_grads()",
    ),
}


def _without_gradient(parameters: list[Owned], reason: str, advice: str) -> Iterator[Clue]:
    if parameters:
        row = next((row for row, _ in parameters if row), None)
        yield Clue(f"no gradient, {reason}: {_by_module(parameters)}", advice, row)


def frozen(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Parameters that are not trained, because somebody set ``requires_grad = False``.

    They get no gradient and are meant to get none, so they are told and nothing more. The gradient
    still has to get through them to whatever is trained below.
    """
    parameters = [(row, p) for row, own in owners(profile) for p in own if not p.trainable]
    if parameters:
        message = f"frozen, requires_grad is False: {_by_module(parameters)}"
        yield Clue(message, "nothing to do, if it is meant", parameters[0][0])


def all_frozen(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Every parameter has ``requires_grad = False``: an optimizer has nothing to move.

    Freezing a backbone in a loop over ``model.parameters()`` freezes the head too, where it stands
    in the model already. ``loss.backward()`` then raises "does not require grad".
    """
    parameters = [p for _, own in owners(profile) for p in own]
    if parameters and not any(p.trainable for p in parameters):
        message = "nothing is trained: requires_grad is False of every parameter"
        advice = "freeze the backbone alone, or p.requires_grad_(True) for what is to be trained"
        yield Clue(message, advice, None, 0.0)


def idle(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Modules that have no part in this batch, while others in the same list have.

    They were not called, or nothing of the loss comes back to them: an expert of a mixture that got
    no token or a gate of zero, the head of a detector for a scale at which no object stands. They
    have no gradient now and may have one with the next batch; if a larger batch leaves them idle
    too, the router starves the expert. A layer that the loop over a list leaves out looks the same,
    and never learns. Or all ReLU units of a part of a block are off, and not in most other blocks.
    """
    parameters = [(row, p) for row, p in _lost(profile) if p.use is Use.IDLE]
    if parameters:
        message = f"not called in this batch, and its siblings were: {_by_module(parameters)}"
        advice = "an expert without a token: try a larger batch; a layer: see that it is called"
        yield Clue(message, advice, parameters[0][0])
    rows = [row for row in profile.rows if row.status is RowStatus.IDLE and row.parameters]
    if rows:
        names = listed(row.name for row in rows)
        message = f"the loss takes nothing of it in this batch, and of its siblings: {names}"
        advice = "nothing to do, if other batches reach it: try a larger one"
        yield Clue(message, advice, rows[0])
    if not cut_row(profile):
        yield from _off_by_chance(profile)


def _off_by_chance(profile: GradientProfile) -> Iterator[Clue]:
    for row, names in off_in_some(profile):
        message = f"exactly zero gradient, and not in the other blocks: {listed(names)}"
        advice = "its ReLU units are off for every sample: more of them, or another draw"
        yield Clue(message, advice, row, 0.0)


def cut_draw(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A draw without a gradient goes on to weights: nothing comes back to what it is drawn from.

    `sample()` of a distribution and `torch.normal` cut the graph. A VAE's encoder learns from the
    KL divergence alone, and nothing of what the decoder would need. `rsample()` draws the same
    numbers as mean + std · noise, through which a gradient passes. An action that goes into
    `log_prob` is not named. Only a second look with a loss of your own finds it.
    """
    if profile.further.drawn:
        by, weight, _ = profile.further.drawn
        reader = weight.rpartition(".")[0] or "the weights"
        message = f"no gradient gets from {reader} to what its input is drawn from: {by}"
        advice = "rsample() in place of sample(), or mean + std * torch.randn_like(std)"
        yield Clue(message, advice, _around(profile, reader), 0.0)


def restarted(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A recurrent layer is called step by step, and begins each step from the same state.

    The state is made inside the loop, or what the layer gives of it is not handed to the next
    call: nothing of one step is there at the next. Only a second look finds it: `probe --deep`, or
    `check`.
    """
    if profile.further.restarted:
        name, steps = profile.further.restarted
        message = f"no state goes from step to step: all {steps} calls of {name} begin with the "
        advice = "make the state once, in front of the loop, and hand it on: "
        advice += "y, state = rnn(x, state), of a cell state = cell(x, state)"
        yield Clue(f"{message}same state", advice, _around(profile, name), 0.0)


def constant_derivative(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The loss adds up a derivative of the network that has no graph, and so trains nothing.

    `torch.autograd.grad` without `create_graph=True` gives numbers: a gradient penalty, a residual
    of a differential equation or a force changes the loss and none of its gradients.
    Only a second look with your own loss finds it: `probe --deep`, or `check`.
    """
    if profile.further.constant_derivative:
        message = "a derivative of the network in the loss is a constant there: it trains nothing"
        yield Clue(message, "torch.autograd.grad(…, create_graph=True)", None, 0.0)


def _around(profile: GradientProfile, path: str) -> RowProfile | None:
    """The row that a module is, or stands in."""
    rows = (row for row in profile.ran if f"{path}.".startswith(f"{row.module}."))
    return next(rows, None)


def _lost(profile: GradientProfile) -> Iterator[Owned]:
    """Trained parameters without a path from the loss, with their rows."""
    for row, parameters in owners(profile):
        if row is None or not row.level:
            yield from ((row, p) for p in parameters if p.trainable and p.gradient_norm is None)


def _is_unused(row: RowProfile | None, parameter: ParameterProfile) -> bool:
    """Whether nothing used it: its module did not run, or got a gradient for the others."""
    if parameter.use is not Use.CALLED:
        return parameter.use is Use.UNCALLED
    if row is None or row.status is RowStatus.NOT_RUN:
        return True
    home = _home(parameter)
    beside = [p for p in row.parameters if p.gradient_norm is not None]
    return any(_home(p) == home for p in beside)


def _ends_a_stack(
    profile: GradientProfile, row: RowProfile | None, parameter: ParameterProfile
) -> bool:
    """Whether it feeds what the last row of a stack puts out for a next one, which is not there.

    The rest of the row has a gradient, and so has its counterpart in every row before it.
    """
    if row is None or all(p.gradient_norm is None for p in row.parameters):
        return False
    place = parameter.name.removeprefix(row.name)
    stack = [other for other in profile.rows if _stack(other) == _stack(row)]
    before = [p for other in stack[:-1] for p in other.parameters if p.name == other.name + place]
    reached = [p.gradient_norm is not None for p in before]
    return stack[-1] is row and bool(reached) and all(reached)


def _stack(row: RowProfile) -> tuple[str, str, int]:
    return row.name.rpartition(".")[0], row.kind, row.level


def _home(parameter: ParameterProfile) -> str:
    """The path of the module that holds it."""
    return parameter.name.rpartition(".")[0]


def _by_module(parameters: list[Owned]) -> str:
    """``encoder (12 parameters), head.norm (weight, bias), scale``: by row where the whole row is
    meant, else by the module that holds them."""
    groups: dict[str, list[str]] = {}
    rows = Counter(row.name for row, _ in parameters if row)
    for row, p in parameters:
        whole = row is not None and len(row.parameters) == rows[row.name]
        home = row.name if whole and row else _home(p)
        groups.setdefault(home, []).append(p.name.removeprefix(f"{home}."))
    return listed((_group(home, names) for home, names in groups.items()), most=12)


def _group(home: str, names: list[str]) -> str:
    if len(names) == 1:
        return f"{home}.{names[0]}" if home else names[0]
    inside = ", ".join(names) if len(names) < 4 else f"{len(names)} parameters"
    return f"{home} ({inside})" if home else inside


RULES = (
    Rule("GP201", "dead", Severity.ERROR, dead, Verdict.DEAD),
    Rule("GP202", "disconnected", Severity.ERROR, disconnected, Verdict.DISCONNECTED),
    Rule("GP203", "frozen", Severity.INFO, frozen),
    Rule("GP204", "idle", Severity.WARNING, idle),
    Rule("GP205", "unused", Severity.WARNING, unused),
    Rule("GP206", "all-frozen", Severity.ERROR, all_frozen, Verdict.DISCONNECTED),
    Rule("GP207", "cut-draw", Severity.WARNING, cut_draw, Verdict.WEAK),
    Rule("GP208", "restarted-state", Severity.WARNING, restarted, Verdict.WEAK),
    Rule("GP209", "constant-derivative", Severity.WARNING, constant_derivative, Verdict.WEAK),
)
