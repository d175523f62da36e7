"""Weights and their gradients → the weights a small step later, and how many scale is free.

A weight in front of a normalisation is scale-invariant: its gradient is orthogonal to it, so a step
that is too long makes the weight longer and the next step shorter, until the steps fit (Arora, Li
and Lyu 2018, arXiv 1812.03981). So the step of such weights is no longer than what changes the
output by a part of its spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradprobe.measure.norms import norms
from gradprobe.model.tensors import in_float64

# Of each weight's RMS singular value; benchmarks/trainability/steps.py compares others.
STEP = 0.003
CHANGE = 0.3  # of the output's spread: the most by which scale-invariant weights may change it
SHORTEST = 0.01  # of the step: shorter ones drown in the rounding of float32
_RIGHT_ANGLE = 0.05  # of the cosine that two random directions have
_FEW = 16  # numbers; a matrix with so small a gradient is far from the loss
_PART = 1 << 20  # numbers of a weight that are compared at once


class Lengths(NamedTuple):
    """Factors of gradients that are one RMS singular value of their weights, by name."""

    whole: dict[str, float]
    falls: dict[str, float]  # by how much such a step lowers the loss, of scale-invariant weights

    def shares(self, step: float, spread: float) -> dict[str, float]:
        """The factors of the gradients that are the step."""
        fall = math.fsum(self.falls.values())
        short = min(step, max(SHORTEST * step, CHANGE * spread / fall)) if fall else step
        return {n: (short if n in self.falls else step) * unit for n, unit in self.whole.items()}

    @property
    def invariant(self) -> float:
        """The share of the weights that are scale-invariant."""
        return len(self.falls) / len(self.whole) if self.whole else 0.0


class Moved(NamedTuple):
    """The weights after the step, by name, and the share of them that are scale-invariant."""

    weights: dict[str, Tensor]
    invariant: float


def moved_against(
    weights: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    step: float,
    spread: float = math.inf,
) -> Moved:
    """Each weight that a step can move, after the step.

    Args:
        spread: by how much the loss differs between samples, as far as the output goes; the step of
            scale-invariant weights lowers the loss by ``CHANGE`` of it at most, to first order.
    """
    steps = lengths_of(weights, gradients)
    shares = steps.shares(step, spread)
    moved = {n: moved_by(weights[n].detach(), gradients[n], share) for n, share in shares.items()}
    return Moved(moved, steps.invariant)


def lengths_of(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Lengths:
    """How long a step is of each weight that a step can move.

    The gradient of a few numbers in front of a norm that takes their scale out is a long sum that
    comes to 0: what is left is rounding, of the largest product of a weight and its gradient.
    """
    names = [name for name in weights if name in gradients]
    sizes = norms([weights[name].detach() for name in names])
    lengths = norms([gradients[name] for name in names])
    most = max((a * b for a, b in zip(sizes, lengths, strict=True)), default=0.0)
    whole: dict[str, float] = {}
    falls: dict[str, float] = {}
    for name, size, length in zip(names, sizes, lengths, strict=True):
        few = weights[name].numel() <= _FEW
        least = most * torch.finfo(weights[name].dtype).eps if few else 0.0
        if size * length > least:
            unit = size / math.sqrt(min(len(weights[name]), weights[name][0].numel()))
            whole[name] = unit / length
            if _orthogonal(weights[name].detach(), gradients[name], size * length):
                falls[name] = unit * length
    return Lengths(whole, falls)


def _orthogonal(weight: Tensor, gradient: Tensor, lengths: float) -> bool:
    """Whether the two are at a right angle, by far more than two random tensors are."""
    parts = zip(parts_of(weight), parts_of(gradient), strict=True)
    product = math.fsum(float((in_float64(w) * in_float64(g)).sum()) for w, g in parts)
    return abs(product) < _RIGHT_ANGLE * lengths / math.sqrt(weight.numel())


def moved_by(weight: Tensor, gradient: Tensor, factor: float) -> Tensor:
    """The weight after a step against its gradient."""
    moved = torch.empty_like(weight, memory_format=torch.contiguous_format)
    parts = zip(parts_of(moved), parts_of(weight), parts_of(gradient), strict=True)
    for new, old, slope in parts:
        # In float64: a gradient of 1e-40 and 1 ÷ its norm are both at float32's end.
        new.copy_(in_float64(old) - in_float64(slope) * factor)
    return moved


def parts_of(tensor: Tensor) -> Sequence[Tensor]:
    """The tensor's numbers in parts that are small in float64 as well."""
    return torch.split(tensor.reshape(-1), _PART)
