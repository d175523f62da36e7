"""How far a network without an activation can come: no further than the best linear fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gradprobe.measure.again import output_of
from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.graph import behind_shapes, kind_of
from gradprobe.measure.passes import scalar
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.streamed import Streamed
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import tensors_in

_WEIGHTS = 1 << 16  # of the fit, at the most
_STEPS = 60

# What an output may go through behind the last layer, by the kind of its node.
_ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softmax": lambda x: x.softmax(1),
    "LogSoftmax": lambda x: x.log_softmax(1),
    **dict.fromkeys(("Addmm", "Mm", "Add", "Mean"), lambda x: x),
}


def linear_share(subject: Subject, layers: int) -> float | None:
    """The loss of the best linear fit of this batch ÷ that of the best constant.

    What a network gives whose ``layers`` have nothing between them is such a fit, whatever its
    weights are. ``None`` where there is an activation, where the batch has not twice as many
    samples as the fit has weights for each output, or where the loss is none that falls to 0.
    """
    inputs = list(tensors_in([subject.args, dict(subject.kwargs)]))
    if layers < 2 or not subject.own_loss or len(inputs) != 1 or subject.ranks is not None:
        return None
    if isinstance(subject.model, Streamed) or not inputs[0].is_floating_point():
        return None
    with undisturbed(subject.model), keeping_graph():
        output = output_of(subject)
        end = _ENDS.get(kind_of(behind_shapes(output.grad_fn)))
        x = inputs[0].detach().flatten(1)
        size, width = len(x), x.shape[1] + 1
        if end is None or len(output) != size or size < 2 * width:
            return None
        if width * output[0].numel() > _WEIGHTS:
            return None
        x = (x - x.mean(0)) / x.std(0).clamp(min=1e-12)
        x = torch.cat([torch.ones_like(x[:, :1]), x], 1).to(output.dtype)

        def loss(fitted: Tensor) -> Tensor:
            return scalar(subject.loss(end(fitted.view_as(output))))

        constant, fit = _least(loss, x[:, :1], output), _least(loss, x, output)
    share = fit / constant if constant > 0 <= fit else math.nan
    return share if math.isfinite(share) else None


def _least(loss: Callable[[Tensor], Tensor], x: Tensor, output: Tensor) -> float:
    """The least ``loss`` of x times weights that L-BFGS finds, which begins at weights of 0."""
    weights = x.new_zeros(x.shape[1], output[0].numel(), requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> float:
        value = loss(x @ weights)
        [weights.grad] = torch.autograd.grad(value, [weights])
        return float(value.detach())

    search.step(closure)  # type: ignore[no-untyped-call]
    return float(loss(x @ weights).detach())
