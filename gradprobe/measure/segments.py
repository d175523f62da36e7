"""A chain of rows, whose graph is cut into segments that are run backward one at a time.

Only one segment's gradients are alive at once, and no hook is called.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from gradprobe.measure.ends import main_output, of_chain, of_graph
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
from gradprobe.model.rows import Row, parameters_of
from gradprobe.model.subject import Loss

_SEGMENT_ROWS = 64
_SEGMENT_ELEMENTS = 1 << 18  # 1 MiB in float32: what a core's cache holds


class _Segment(NamedTuple):
    start: int  # index of its first row
    leaf: Tensor
    outputs: list[GradientEdge | None]
    parameters: list[nn.Parameter]
    end: Tensor


def can_be_cut(modules: list[nn.Module]) -> bool:
    """Whether the row boundaries may be leaves: not where a row overwrites its input."""
    return not any(module.__dict__.get("inplace") for module in modules)


def measure_chain(rows: list[Row], x: Tensor, loss: Loss) -> Pass:
    """One pass through rows of which each takes what the one before puts out.

    Raises:
        InputError, ModelError: as ``measure``.
    """
    own = [[p for _, p in parameters_of(row.module)] for row in rows]
    # The input needs a gradient only if a row before the first trained weights is to have one.
    given = x = x.detach()
    if x.is_floating_point() and not any(p.requires_grad for p in own[0]):
        x.requires_grad_()
    stats: list[ActivationStats] = []
    segments: list[_Segment] = []
    position = 0
    while position < len(rows):
        leaf = x if position == 0 else x.detach().requires_grad_()
        segment, outputs = _forward(rows, own, position, leaf)
        stats += activation_stats(outputs)
        segments.append(segment)
        x, position = segment.end, position + len(outputs)
    try:
        value = scalar(loss(x))
        named = [pair for row in rows for pair in parameters_of(row.module, f"{row.name}.")]
        around = of_graph(value, main_output(x), named, [segment.end for segment in segments])
        around = of_chain([row.module for row in rows], given, around)
        gradients, parameters = _backward(segments, value, len(rows))
    except Exception as error:
        raise failed(error, None, rows) from error
    passes = []
    for row, stat, gradient in zip(rows, stats, gradients, strict=True):
        status = RowStatus.OK if gradient is not None else RowStatus.NO_GRADIENT
        passes.append(RowPass(row, status, stat, gradient))
    return Pass(passes, parameters, float(value.detach()), around=around)


def _forward(
    rows: list[Row], own: list[list[nn.Parameter]], start: int, leaf: Tensor
) -> tuple[_Segment, list[Tensor]]:
    """One segment, run forward, and the outputs of its rows."""
    x, position, elements = leaf, start, 0
    edges: list[GradientEdge | None] = []
    outputs: list[Tensor] = []
    parameters: list[nn.Parameter] = []
    while position < len(rows) and elements < _SEGMENT_ELEMENTS and len(edges) < _SEGMENT_ROWS:
        try:
            x = rows[position].module(x)
        except Exception as error:
            raise failed(error, rows[position], rows[:position]) from error
        edges.append(edge_of(x))
        outputs.append(x.detach())
        parameters += own[position]
        elements += x.numel() + sum([p.numel() for p in own[position]])
        position += 1
    return _Segment(start, leaf, edges, parameters, x), outputs


def _backward(
    segments: list[_Segment], value: Tensor, row_count: int
) -> tuple[list[float | None], ParameterNorms]:
    """Backward, one segment at a time from the last; each is freed when it is done."""
    row_norms: list[float | None] = [None] * row_count
    parameter_norms: ParameterNorms = {}
    arriving: Tensor | None = None  # ∂L/∂(end of the segment); the loss is a scalar and needs none
    segments[-1] = segments[-1]._replace(end=value)
    while segments:
        segment = segments.pop()
        trainable = [p for p in segment.parameters if p.requires_grad]
        indices = [i for i, edge in enumerate(segment.outputs) if edge is not None]
        edges: list[Any] = [segment.outputs[i] for i in indices]
        leaf = [segment.leaf] if segment.leaf.requires_grad else []
        root = segment.end if segment.end is value else _weighted(segment.end, arriving)
        gradients = gradients_of(root, [*edges, *trainable, *leaf])
        arriving = gradients[-1] if leaf else None
        counted = gradients[: len(edges) + len(trainable)]
        weights = [p.detach() for p in segment.parameters]
        values = iter(norms([*(g for g in counted if g is not None), *weights]))
        sizes = [None if g is None else next(values) for g in counted]
        for index, norm in zip(indices, sizes, strict=False):
            row_norms[segment.start + index] = norm
        of_gradients = dict(zip(map(id, trainable), sizes[len(edges) :], strict=True))
        for parameter, norm in zip(segment.parameters, values, strict=True):
            parameter_norms[id(parameter)] = (norm, of_gradients.get(id(parameter)))
    return row_norms, parameter_norms


def _weighted(end: Tensor, arriving: Tensor | None) -> Tensor | None:
    """⟨end, ∂L/∂end⟩, which has the gradients of L; ``None`` where none arrives.

    Handed over as grad_outputs, ∂L/∂end would make torch import sympy, which takes half as long as
    importing torch.
    """
    if arriving is None:
        return None
    with torch.enable_grad():
        return (end * arriving).sum()
