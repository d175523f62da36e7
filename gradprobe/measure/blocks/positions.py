"""Through time: how far the gradient of the last position reaches back along a sequence."""

from __future__ import annotations

import torch

from gradprobe.errors import InputError
from gradprobe.measure.blocks.chain import Element, as_leaf, trace
from gradprobe.measure.norms import activation_stats, norms
from gradprobe.measure.profile import GradientProfile, RowProfile, RowStatus
from gradprobe.model.build import Network
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
    network, seed = subject.model, subject.seed
    if not isinstance(network, Network):
        raise InputError("positions are measured where a spec says which rows mix them")
    rows = [Element(row.name, i, row.module) for i, row in enumerate(network.rows)]
    mixing = [i for i, row in enumerate(network.rows) if kinds(Trait.SEQUENCE) & set(row.contains)]
    if not mixing:
        known = ", ".join(sorted(kinds(Trait.SEQUENCE)))
        raise InputError("no row mixes the positions of a sequence", hint=f"one of {known} does")
    first = mixing[0]
    values = trace(rows, subject.args[0], seed)
    start = values[first]
    if not start.is_floating_point():
        message = f"row {network.rows[first].name} takes tokens: no gradient reaches back to them"
        raise InputError(message, hint="let the embedding be a row of its own")
    sequences = [i for i in mixing if values[i + 1].shape[:2] == start.shape[:2]]
    last = max((i for i in sequences if values[i + 1].dim() == 3), default=-1)
    if last < 0:
        raise InputError("no row that mixes the positions of a sequence hands the sequence on")
    while last + 1 < len(rows) and values[last + 2].shape[:2] == start.shape[:2]:
        last += 1
    leaf = as_leaf(start)
    with torch.enable_grad():
        out = leaf.clone()
        for row in rows[first : last + 1]:
            out = row.run(out, seed)
        value = subject.loss(out[:, -1])
        (gradient,) = torch.autograd.grad(value, leaf)
    by_position = gradient.detach().transpose(0, 1)
    outputs = out.detach().transpose(0, 1)
    sizes = norms([g.contiguous() for g in by_position.unbind(0)])
    stats = activation_stats([o.contiguous() for o in outputs.unbind(0)])
    inside = {kind for row in network.rows[first : last + 1] for kind in row.contains}
    profiles = tuple(
        RowProfile(
            name=str(position),
            kind="position",
            level=0,
            line=network.rows[first].line,
            column=network.rows[first].column,
            status=RowStatus.OK,
            gradient_norm=size,
            activation_rms=stat.rms,
            input_dependence=stat.input_dependence,
            zero_fraction=stat.zero_fraction,
            contains=tuple(sorted(inside)),
        )
        for position, (size, stat) in enumerate(zip(sizes, stats, strict=True))
    )
    return GradientProfile(
        rows=profiles,
        parameters=sum(p.numel() for p in network.parameters()),
        loss=float(value.detach()),
        smallest_gradient=torch.finfo(leaf.dtype).tiny,
        unit="position",
    )
