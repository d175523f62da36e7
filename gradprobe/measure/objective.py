"""A subject → the loss that a trial lowers, and the share of the labels that is right."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradprobe.errors import ModelError
from gradprobe.measure.optimizers import gradients_of
from gradprobe.measure.passes import scalar
from gradprobe.model.seeds import derive
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import in_float64, map_tensors, real, tensors_in

CLASSES = 10

_ENOUGH = 8  # samples, of which nobody gets nine in ten right by chance
_SEARCH = 20  # steps in the search for the best constant output
_CLOSE = 1e-3  # what adds up to 1 may be so far off
_SMALLEST = 1e-6  # probability that a constant output begins with
_BLOCK = 2**16  # columns of the random matrix, which is used again for longer outputs
_LEAST = 0.1  # RMS: k times larger is k² the curvature, of which the smallest rate makes up 10²

# From what the model gives to the loss and the share of the labels that is right.
Objective = Callable[[Any], tuple[Tensor, float]]


def objective(subject: Subject, samples: Samples) -> Objective:
    """The user's own loss, or that of labels which are drawn for the samples."""
    if subject.own_loss:
        return lambda output: (scalar(subject.loss(output)), 0.0)
    drawn = _DrawnLabels(subject.seed, samples)

    def of(output: Any) -> tuple[Tensor, float]:
        main = subject.main(output)
        if main is not None and not main.requires_grad:  # an input that is handed on
            floats = (t for t in tensors_in(output) if t.is_floating_point())
            main = next((t for t in floats if t.requires_grad), main)
        if main is None:
            raise ModelError("the model's output holds no floating point tensor")
        if not main.dim():  # a module that gives its loss itself
            return main, 0.0
        return drawn(main)

    return of


def of_constant(subject: Subject, samples: Samples, output: Any) -> float | None:
    """The least that the user's own loss gives of outputs which are the same for every sample.

    A few steps of L-BFGS from the mean over the samples, among what the model can put out: where
    that is probabilities, their logarithms or unit vectors, so is it. ``None`` where no output
    belongs to samples, of which there are two at least, where the loss takes no other output than
    the model's, or where it is not finite.
    """
    if not samples.kinds.any():
        return None
    constants: dict[int, _Constant] = {}
    for tensor in tensors_in(output):
        axis = samples.axis_of(tensor) if tensor.is_floating_point() else None
        if axis is not None:
            constants[id(tensor)] = _constant(tensor.detach(), axis)
    losses: list[float] = []

    def loss_of_constants() -> Tensor:
        alike = map_tensors(
            lambda t: constants[id(t)].like(t) if id(t) in constants else t.detach(), output
        )
        loss = scalar(subject.loss(alike))
        losses.append(loss.item())
        for leaf, gradient in zip(leaves, gradients_of(loss, leaves), strict=True):
            leaf.grad = gradient
        return loss

    if not constants:
        return None
    leaves = [constant.leaf for constant in constants.values()]
    search = torch.optim.LBFGS(leaves, max_iter=_SEARCH, line_search_fn="strong_wolfe")
    with suppress(Exception):  # a loss may take nothing but what the model gave
        search.step(loss_of_constants)  # type: ignore[no-untyped-call]
    return min((loss for loss in losses if math.isfinite(loss)), default=None)


class _Constant(NamedTuple):
    """One output for all samples, as the function of a leaf that a model can put out."""

    leaf: Tensor
    function: Callable[[Tensor], Tensor]

    def like(self, output: Tensor) -> Tensor:
        return self.function(self.leaf).expand_as(output)


def _constant(output: Tensor, axis: int) -> _Constant:
    """One that begins at the mean over the samples, which lie along ``axis``.

    It stays what the outputs are: log-probabilities, probabilities, unit vectors, or any numbers.
    """
    mean = output.mean(axis, keepdim=True)
    for dim in range(output.dim()):
        if dim == axis or output.shape[dim] < 2:
            continue
        if _is_close(output.logsumexp(dim), 0):
            return _Constant(mean.requires_grad_(), partial(F.log_softmax, dim=dim))
        if bool((output >= 0).all()) and _is_close(output.sum(dim), 1):
            logarithms = mean.clamp_min(_SMALLEST).log()
            return _Constant(logarithms.requires_grad_(), partial(F.softmax, dim=dim))
        if _is_close(torch.linalg.vector_norm(output, dim=dim), 1):
            return _Constant(mean.requires_grad_(), partial(F.normalize, dim=dim))
    return _Constant(mean.requires_grad_(), lambda leaf: leaf)


def _is_close(values: Tensor, expected: float) -> bool:
    return bool(((values - expected).abs() < _CLOSE).all())


class Samples(NamedTuple):
    """How many samples there are, along which axis, and which of them are the same."""

    number: int
    axis: int
    kinds: Tensor  # of each sample, from 0 on: samples of one kind are equal

    @classmethod
    def of(cls, subject: Subject) -> Samples:
        tensors = [t for t in tensors_in([subject.args, dict(subject.kwargs)]) if t.dim()]
        axis = 1 if tensors and tensors[0].dim() > 1 and time_first(subject.model) else 0
        number = tensors[0].shape[axis] if tensors else 1
        dense = [t for t in tensors if t.numel() and t.layout is torch.strided]
        of_samples = [t for t in dense if t.shape[axis : axis + 1] == (number,)]
        flat = [t.detach().movedim(axis, 0).reshape(number, -1) for t in of_samples]
        if not flat:
            return cls(number, axis, torch.zeros(number, dtype=torch.long, device="cpu"))
        rows = torch.cat([in_float64(real(t.cpu()).flatten(1)) for t in flat], 1)
        return cls(number, axis, torch.unique(rows, dim=0, return_inverse=True)[1])

    def axis_of(self, output: Tensor) -> int | None:
        """The axis of a tensor along which the samples are, if there is one."""
        axes = [axis for axis in (self.axis, 0, 1) if axis < output.dim()]
        return next((axis for axis in axes if output.shape[axis] == self.number), None)

    def flat(self, output: Tensor) -> Tensor:
        """What belongs to each sample, as one row: (samples, numbers)."""
        output = output[:, None] if output.dim() == 1 else output
        return output.movedim(self.axis_of(output) or 0, 0).flatten(1)


class _DrawnLabels:
    """Cross entropy of ten logits against labels drawn at random; equal samples get one label.

    The logits are a random linear map of a sample's whole output, so scaled that their RMS is about
    1 at first, but at most ten times larger than the outputs'. Of fewer than ten numbers there are
    as many logits as numbers, but two at least.
    """

    def __init__(self, seed: int, samples: Samples) -> None:
        self.generator = torch.Generator().manual_seed(derive(seed, "overfit"))
        self.samples = samples
        self.drawn: tuple[Tensor, Tensor] | None = None

    def __call__(self, output: Tensor) -> tuple[Tensor, float]:
        flat = self.samples.flat(output)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        if self.drawn is None:
            self.drawn = self._draw(flat.detach())
        matrix, labels = self.drawn
        logits = flat.new_zeros(len(flat), matrix.shape[1])
        for block in torch.split(flat, _BLOCK, 1):
            logits = logits + block @ matrix[: block.shape[1]]
        right = int((logits.argmax(1) == labels).sum()) / len(labels)
        return F.cross_entropy(logits, labels), right if len(labels) >= _ENOUGH else 0.0

    def _draw(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        count, size = flat.shape
        classes = max(2, min(CLASSES, size))
        kinds = (
            self.samples.kinds
            if count == self.samples.number
            else torch.arange(count, device="cpu")
        )
        order = torch.randperm(int(kinds.max()) + 1, generator=self.generator, device="cpu")
        matrix = torch.randn(min(size, _BLOCK), classes, generator=self.generator, device="cpu")
        matrix -= matrix.mean(1, keepdim=True)
        matrix /= matrix.square().mean(1, keepdim=True).sqrt()
        rms = float(flat.square().mean().sqrt())
        scale = math.sqrt(size) * (max(rms, _LEAST) if math.isfinite(rms) else 1.0)
        return matrix.to(flat) / scale, (order[kinds] % classes).to(flat.device)


def time_first(model: nn.Module) -> bool:
    return any(getattr(module, "batch_first", True) is False for module in model.modules())
