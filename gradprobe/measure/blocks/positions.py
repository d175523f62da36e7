"""Through time: how far the gradient of the last position reaches back along a sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradprobe.errors import InputError
from gradprobe.measure.blocks.chain import Element, as_leaf, rows_of, trace
from gradprobe.measure.norms import activation_stats, norms
from gradprobe.measure.profile import GradientProfile, RowProfile, RowStatus
from gradprobe.model.build import Network
from gradprobe.model.rows import Row
from gradprobe.model.subject import Subject
from gradprobe.spec.layers import Trait, kinds


def measure_positions(subject: Subject) -> GradientProfile:
    """One backward pass from the last position, its gradient taken apart by position.

    The rows of the profile are the positions: ``gradient_norm`` is ‖∂L/∂x_t‖ over batch and
    features, where x is the input of the first row that mixes positions, and L reads the last
    position of the last row that still is a sequence. Reach is relative to the last position.

    Raises:
        InputError: no row mixes positions, or the subject is no spec's network.
    """
    if not isinstance(subject.model, Network):
        raise InputError("positions are measured where a spec says which rows mix them")
    start, elements = _mixing(subject)
    leaf = as_leaf(start)
    with torch.enable_grad():
        out = leaf.clone()
        for element in elements:
            out = element.run(out, subject.seed)
        value = subject.loss(out[:, -1])
        (gradient,) = torch.autograd.grad(value, leaf)
    rows = subject.rows[elements[0].row : elements[-1].row + 1]
    return GradientProfile(
        rows=_profiles(rows, gradient.detach(), out.detach()),
        parameters=sum(p.numel() for p in subject.model.parameters()),
        loss=float(value.detach()),
        smallest_gradient=torch.finfo(leaf.dtype).tiny,
        unit="position",
    )


def _mixing(subject: Subject) -> tuple[Tensor, list[Element]]:
    """The input of the first row that mixes positions, and the rows up to the last sequence."""
    elements = rows_of(subject)
    mixers = kinds(Trait.SEQUENCE)
    mixing = [i for i, row in enumerate(subject.rows) if mixers & set(row.contains)]
    if not mixing:
        listed = ", ".join(sorted(mixers))
        raise InputError("no row mixes the positions of a sequence", hint=f"one of {listed} does")
    first = mixing[0]
    values = trace(elements, subject.args[0], subject.seed)
    start = values[first]
    if not start.is_floating_point():
        message = f"row {elements[first].name} takes tokens: no gradient reaches back to them"
        raise InputError(message, hint="let the embedding be a row of its own")
    sequences = [i for i in mixing if values[i + 1].shape[:2] == start.shape[:2]]
    last = max((i for i in sequences if values[i + 1].dim() == 3), default=-1)
    if last < 0:
        raise InputError("no row that mixes the positions of a sequence hands the sequence on")
    while last + 1 < len(elements) and values[last + 2].shape[:2] == start.shape[:2]:
        last += 1
    return start, elements[first : last + 1]


def _profiles(rows: Sequence[Row], gradient: Tensor, output: Tensor) -> tuple[RowProfile, ...]:
    """One row for each position of a gradient and an output of shape (batch, positions, …)."""
    sizes = norms([g.contiguous() for g in gradient.transpose(0, 1).unbind(0)])
    stats = activation_stats([o.contiguous() for o in output.transpose(0, 1).unbind(0)])
    inside = {kind for row in rows for kind in row.contains}
    return tuple(
        RowProfile(
            name=str(position),
            kind="position",
            level=0,
            line=rows[0].line,
            column=rows[0].column,
            status=RowStatus.OK,
            gradient_norm=size,
            activation_rms=stat.rms,
            input_dependence=stat.input_dependence,
            zero_fraction=stat.zero_fraction,
            contains=tuple(sorted(inside)),
        )
        for position, (size, stat) in enumerate(zip(sizes, stats, strict=True))
    )
