"""Weights and their gradients → the weights a small step later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradprobe.measure.norms import norms

# Of each weight's RMS singular value; benchmarks/trainability/steps.py compares others.
STEP = 0.003
_PART = 1 << 20  # numbers of a weight that are compared at once


def moved_against(
    weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], step: float
) -> dict[str, Tensor]:
    """Each weight that a step can move, after the step."""
    names = [name for name in weights if name in gradients]
    sizes = norms([weights[name].detach() for name in names])
    lengths = norms([gradients[name] for name in names])
    moved = {}
    for name, size, length in zip(names, sizes, lengths, strict=True):
        if size and length:
            weight = weights[name].detach()
            rank = min(len(weight), weight[0].numel())
            factor = step * size / math.sqrt(rank) / length
            moved[name] = torch.empty_like(weight, memory_format=torch.contiguous_format)
            parts = zip(
                parts_of(moved[name]), parts_of(weight), parts_of(gradients[name]), strict=True
            )
            for new, old, gradient in parts:
                # In float64: a gradient of 1e-40 and 1 ÷ its norm are both at float32's end.
                new.copy_(old.double() - gradient.double() * factor)
    return moved


def parts_of(tensor: Tensor) -> Sequence[Tensor]:
    """The tensor's numbers in parts that are small in float64 as well."""
    return torch.split(tensor.reshape(-1), _PART)
