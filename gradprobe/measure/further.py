"""What the output's graph, the loss at other outputs and other weights tell beside the signals.

Which outputs have no effect, whether the loss tells samples apart, how large a step is stable, and
whether the state of a loop is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from gradprobe.measure.again import output_of, standing_at
from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.graph import is_weight
from gradprobe.measure.norms import norms
from gradprobe.measure.passes import edge_of, gradients_of, scalar
from gradprobe.measure.states import Loops
from gradprobe.measure.surroundings import NOTHING, Further, StateProfile
from gradprobe.measure.terms import times_compared
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.seeds import derive
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import in_float64, nodes_behind, tensors_in, with_tensor

_STEP = 0.003  # along the gradient, of the norm of all weights
_LARGER = 1.5  # times a loop's weights: some hundred steps of Adam at 1e-3 move them as far
_COLUMNS = 64  # of an output, at the most, that are looked at
_WORK = 1 << 23  # elements that are looked at for that
_SAME = 1 - 1e-5  # the share of the samples' gradients that is their mean
_SHIFTS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
_HALVES = 12


class Glance(NamedTuple):
    """What was seen of one forward pass while its graph was there."""

    further: Further
    gradient: dict[str, Tensor]  # of the loss, by the parameter's name
    loops: list[str]  # names of the weights that are used in each step of a loop


def glance(subject: Subject, output: Any, bends: bool) -> Glance:
    """What ``output`` tells, whose graph stays.

    Args:
        bends: whether the loss's curvature is wanted.
    """
    try:
        return _glance(subject, output, bends)
    except Exception:  # a loss or an output of a kind of its own
        return Glance(NOTHING, {}, [])


def _glance(subject: Subject, output: Any, bends: bool) -> Glance:
    main = subject.main(output)
    parameters = {n: p for n, p in subject.model.named_parameters() if p.requires_grad}
    weights = {id(p): name for name, p in parameters.items() if p.is_floating_point()}
    further = Further()
    if main is not None and main.requires_grad and main.dim():
        idle, columns = _idle_columns(main, subject.seed)
        alike = _alike(subject, output, main) if subject.own_loss else None
        further = Further(idle=tuple(idle), columns=columns, alike=alike)
    if subject.own_loss:
        with suppress(Exception):  # a loss that cannot be asked twice
            loss = scalar(subject.loss(output))
            further = further._replace(added=times_compared(loss, list(parameters.values())))
    gradient = _gradient(subject, output, parameters, keep=True) if bends else {}
    names = [weights[key] for key in _loops(output).weights() if key in weights]
    return Glance(further, gradient, names)


def further_of(subject: Subject, seen: Glance) -> Further:
    """The same with what two forward passes at other weights tell, where there is a use for them.

    Steps of gradient descent above 2/λ grow, with λ the largest eigenvalue of the loss's Hessian
    (LeCun et al. 1998, Efficient BackProp); ``curvature`` is a lower bound of λ.
    """
    parameters = dict(subject.model.named_parameters())
    further = seen.further
    try:
        if seen.gradient:
            further = further._replace(curvature=_curvature(subject, seen.gradient, parameters))
        if seen.loops:
            larger = {name: parameters[name].detach() * _LARGER for name in seen.loops}
            further = further._replace(state=_state(subject, parameters, larger))
    except Exception:  # a model that cannot be run at other weights
        return seen.further
    return further


def further_alone(subject: Subject, bends: bool) -> Further:
    """The same by a forward pass of its own; nothing of a model that cannot be run again."""
    try:
        with keeping_graph():
            with undisturbed(subject.model):
                seen = glance(subject, output_of(subject), bends)
            return further_of(subject, seen)
    except Exception:
        return NOTHING


# ---- outputs


def _idle_columns(output: Tensor, seed: int) -> tuple[list[int], int]:
    """The columns of which no weight gets a gradient, and how many were looked at.

    A column is a position in the last dimension, of images a channel.
    """
    nodes, edges = _tail(output)
    place = 1 if output.dim() > 3 else output.dim() - 1
    count = output.shape[place] if output.dim() > 1 else 1
    looked_at = min(count, _COLUMNS, max(1, _WORK // (output.numel() * nodes)) if nodes else 0)
    generator = torch.Generator().manual_seed(derive(seed, "columns"))
    idle = []
    for column in range(looked_at):
        values = output.select(place, column) if output.dim() > 1 else output
        signs = torch.randn(values.shape, generator=generator, device="cpu").to(values)
        gradients = torch.autograd.grad(
            (values * signs).sum(), edges, retain_graph=True, allow_unused=True
        )
        if not any(bool(g.any()) for g in gradients if g is not None):
            idle.append(column)
    return idle, looked_at


def _tail(output: Tensor) -> tuple[int, list[GradientEdge]]:
    """How many nodes stand behind the last weights, and the edges at which those begin."""
    first = edge_of(output)
    stack = [(first.node, first.output_nr)] if first else []
    seen, edges = set(stack), []
    inner: set[Node] = set()
    while stack:
        node, number = stack.pop()
        if any(is_weight(behind) for behind in nodes_behind(node)):
            edges.append(GradientEdge(node, number))
            continue
        inner.add(node)
        new = [(n, k) for n, k in node.next_functions if n is not None and (n, k) not in seen]
        seen.update(new)
        stack += new
    return len(inner), edges


def _alike(subject: Subject, output: Any, main: Tensor) -> float | None:
    """At equal outputs, the share of the samples' gradients that is the same for all: 0 to 1.

    Of one number per sample, gradients that differ have one sign far from the targets. So that is
    asked where they change their sign, which is between the targets.
    """
    if len(main) < 3:
        return None
    share, slope = _alike_at(subject, output, main, 0.0)
    if share is None or share < _SAME or main[0].numel() > 1:
        return share
    shares = [share]
    low, high = 0.0, math.nan
    for shift in _SHIFTS:  # against the slope, until it changes its sign
        high = -math.copysign(shift, slope)
        other, there = _alike_at(subject, output, main, high)
        if other is None or there * slope <= 0:
            break
        low = high
    else:
        return share
    for _ in range(_HALVES):
        if other is None or other < _SAME:
            break
        shares.append(other)
        middle = (low + high) / 2
        other, there = _alike_at(subject, output, main, middle)
        low, high = (middle, high) if there * slope > 0 else (low, middle)
    return min([*shares, other if other is not None else 1.0])


def _alike_at(
    subject: Subject, output: Any, main: Tensor, shift: float
) -> tuple[float | None, float]:
    """The share where all outputs are the mean and ``shift``, and the mean gradient."""
    equal = (main.detach().mean(0, keepdim=True) + shift).expand_as(main).clone().requires_grad_()
    try:
        loss = scalar(subject.loss(with_tensor(output, main, equal.clone())))
        [gradient] = torch.autograd.grad(loss, [equal], allow_unused=True)
    except Exception:  # a loss that takes no such outputs
        return None, 0.0
    if gradient is None:
        return None, 0.0
    rows = in_float64(gradient)
    rows = rows.flatten(1) if rows.dim() > 1 else rows[:, None]
    total = float(rows.square().sum())
    if total <= 0:
        return None, 0.0
    return float(rows.sum(0).square().sum()) / len(rows) / total, float(rows.sum())


# ---- curvature


def _gradient(
    subject: Subject, output: Any, parameters: Mapping[str, Tensor], keep: bool = False
) -> dict[str, Tensor]:
    """The loss's gradient by parameter, where there is one.

    Args:
        keep: whether the graph stays.
    """
    loss = scalar(subject.loss(output))
    gradients = gradients_of(loss, list(parameters.values()), keep)
    pairs = zip(parameters, gradients, strict=True)
    return {n: g for n, g in pairs if g is not None and not g.is_sparse and not g.is_complex()}


def _curvature(
    subject: Subject, gradient: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> float | None:
    """‖Hg‖ / ‖g‖ with the gradient g and the Hessian H of the loss, by a small step along g.

    The largest eigenvalue of H is that much or more: 1 to 2.5 times, in small networks.
    """
    length = math.hypot(*norms(list(gradient.values())))
    size = math.hypot(*norms([parameters[name].detach() for name in gradient]))
    if not (length and size and math.isfinite(length)):
        return None
    step = _STEP * size / length
    moved = {name: parameters[name].detach() - g * step for name, g in gradient.items()}
    with undisturbed(subject.model), standing_at(parameters, moved):
        own = {name: parameters[name] for name in gradient}
        after = _gradient(subject, output_of(subject), own)
    bent = [after[name] - g if name in after else g for name, g in gradient.items()]
    value = math.hypot(*norms(bent)) / (step * length)
    return value if math.isfinite(value) and value > 0 else None


# ---- loops


def _state(
    subject: Subject, parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> StateProfile | None:
    """How the state grows with other weights in the loop."""
    with undisturbed(subject.model), standing_at(parameters, weights):
        loops = _loops(output_of(subject))
    return loops.state({id(p): name for name, p in parameters.items()})


def _loops(output: Any) -> Loops:
    return Loops([tensor.grad_fn for tensor in tensors_in(output)])
