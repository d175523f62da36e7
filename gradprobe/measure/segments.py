"""A chain of rows, whose graph is cut into segments that are run backward one at a time.

Only one segment's gradients are alive at once, and no hook is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from gradprobe.measure.ends import Graph, main_output, of_input
from gradprobe.measure.norms import ActivationStats, activation_stats, norms
from gradprobe.measure.passes import (
    ParameterNorms,
    Pass,
    RowPass,
    edge_of,
    failed,
    gradients_of,
    scalar,
)
from gradprobe.measure.profile import RowStatus
from gradprobe.measure.progress import Step, tell
from gradprobe.measure.surroundings import Surroundings
from gradprobe.model.rows import Row, parameters_of
from gradprobe.model.subject import Loss

SEGMENT_ROWS = 64
_SEGMENT_ELEMENTS = 1 << 18  # 1 MiB in float32: what a core's cache holds
_RESHAPING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout)


class Segment(NamedTuple):
    """A few rows that were run forward, with the graph from ``leaf`` to ``end``."""

    start: int  # index of its first row
    leaf: Tensor
    outputs: list[GradientEdge | None]
    named: list[tuple[str, nn.Parameter]]
    end: Tensor


class SegmentNorms(NamedTuple):
    """What the backward pass of one segment gives."""

    arriving: Tensor | None  # ∂L/∂leaf
    rows: list[float | None]
    parameters: list[tuple[float, float | None]]  # norm and that of the gradient


def can_be_cut(modules: list[nn.Module]) -> bool:
    """Whether the row boundaries may be leaves: not where a row overwrites its input."""
    return not any(module.__dict__.get("inplace") for module in modules)


def measure_chain(rows: list[Row], x: Tensor, loss: Loss) -> Pass:
    """One pass through rows of which each takes what the one before puts out.

    Raises:
        InputError, ModelError: as ``measure``.
    """
    stats: list[ActivationStats] = []
    segments: list[Segment] = []
    while len(stats) < len(rows):
        leaf = next_leaf(segments[-1]) if segments else first_leaf(rows, x)
        segment, outputs = forward(rows, len(stats), leaf)
        stats += activation_stats(outputs)
        segments.append(segment)
        tell(Step(len(stats), len(rows)))
    try:
        value = scalar(loss(segments[-1].end))
        graph = Graph(value, main_output(segments[-1].end))
        named = [pair for segment in segments for pair in segment.named]
        graph.read([*(segment.end for segment in segments), value], named)
        around = with_input(rows, x, graph.around)
        gradients, parameters = _backward(segments, value, len(rows))
    except Exception as error:
        raise failed(error, None, rows) from error
    passes = passes_of(rows, stats, gradients)
    return Pass(passes, parameters, float(value.detach()), around=around)


def first_leaf(rows: list[Row], x: Tensor) -> Tensor:
    """The input, which needs a gradient only if a row before the first trained weights is to have
    one."""
    x = x.detach()
    trained = any(p.requires_grad for _, p in parameters_of(rows[0].module))
    return x.requires_grad_() if x.is_floating_point() and not trained else x


def next_leaf(segment: Segment) -> Tensor:
    """What the next segment begins with."""
    return segment.end.detach().requires_grad_()


def forward(
    rows: list[Row],
    start: int,
    leaf: Tensor,
    made: Callable[[int], nn.Module] | None = None,
    most: int = SEGMENT_ROWS,
) -> tuple[Segment, list[Tensor]]:
    """One segment, run forward, and the outputs of its rows.

    Args:
        made: the module of a row by its index, where it is not the row's own.
        most: rows in the segment.

    Raises:
        ModelError: a row raised.
    """
    x, position, elements = leaf, start, 0
    edges: list[GradientEdge | None] = []
    outputs: list[Tensor] = []
    named: list[tuple[str, nn.Parameter]] = []
    while position < len(rows) and elements < _SEGMENT_ELEMENTS and len(edges) < most:
        row = rows[position]
        try:
            module = made(position) if made else row.module
            x = module(x)
        except Exception as error:
            raise failed(error, row, rows[:position]) from error
        own = parameters_of(module, f"{row.name}.")
        edges.append(edge_of(x))
        outputs.append(x.detach())
        named += own
        elements += x.numel() + sum([p.numel() for _, p in own])
        position += 1
    return Segment(start, leaf, edges, named, x), outputs


def _backward(
    segments: list[Segment], value: Tensor, row_count: int
) -> tuple[list[float | None], ParameterNorms]:
    """Backward, one segment at a time from the last; each is freed when it is done."""
    row_norms: list[float | None] = [None] * row_count
    parameter_norms: ParameterNorms = {}
    root: Tensor | None = value  # the loss is a scalar and needs no gradient
    while segments:
        segment = segments.pop()
        result = backward(segment, root)
        row_norms[segment.start : segment.start + len(result.rows)] = result.rows
        keys = [id(p) for _, p in segment.named]
        parameter_norms |= dict(zip(keys, result.parameters, strict=True))
        root = weighted(segments[-1].end, result.arriving) if segments else None
        tell(Step(row_count - segment.start, row_count, backward=True))
    return row_norms, parameter_norms


def backward(segment: Segment, root: Tensor | None) -> SegmentNorms:
    """The norms of one segment's gradients of ``root``, a scalar behind it."""
    parameters = [p for _, p in segment.named]
    trainable = [p for p in parameters if p.requires_grad]
    indices = [i for i, edge in enumerate(segment.outputs) if edge is not None]
    edges: list[Any] = [segment.outputs[i] for i in indices]
    leaf = [segment.leaf] if segment.leaf.requires_grad else []
    gradients = gradients_of(root, [*edges, *trainable, *leaf])
    counted = gradients[: len(edges) + len(trainable)]
    weights = [p.detach() for p in parameters]
    values = iter(norms([*(g for g in counted if g is not None), *weights]))
    sizes = [None if g is None else next(values) for g in counted]
    row_norms: list[float | None] = [None] * len(segment.outputs)
    for index, norm in zip(indices, sizes, strict=False):
        row_norms[index] = norm
    of_gradients = dict(zip(map(id, trainable), sizes[len(edges) :], strict=True))
    parameter_norms = [
        (norm, of_gradients.get(id(parameter)))
        for parameter, norm in zip(parameters, values, strict=True)
    ]
    return SegmentNorms(gradients[-1] if leaf else None, row_norms, parameter_norms)


def weighted(end: Tensor, arriving: Tensor | None) -> Tensor | None:
    """⟨end, ∂L/∂end⟩, which has the gradients of L; ``None`` where none arrives.

    Handed over as grad_outputs, ∂L/∂end would make torch import sympy, which takes half as long as
    importing torch.
    """
    if arriving is None:
        return None
    with torch.enable_grad():
        return (end * arriving).sum()


def passes_of(
    rows: list[Row], stats: Sequence[ActivationStats], gradients: Sequence[float | None]
) -> list[RowPass]:
    """What was measured of each row."""
    passes = []
    for row, stat, gradient in zip(rows, stats, gradients, strict=True):
        status = RowStatus.OK if gradient is not None else RowStatus.NO_GRADIENT
        passes.append(RowPass(row, status, stat, gradient))
    return passes


def with_input(rows: list[Row], x: Tensor, around: Surroundings) -> Surroundings:
    """``around`` with what the first module with weights reads, if it is the first of all that
    does more than to reshape."""
    modules = (row.module for row in rows)
    first = next((m for m in modules if not isinstance(m, _RESHAPING)), None)
    weighty = (m for m in first.modules() if m._parameters) if first is not None else iter(())
    module = next(weighty, None)
    if module is None or not x.is_floating_point():  # tokens have no size
        return around
    return of_input(around, module, x)
