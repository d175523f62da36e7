"""Norms and activation statistics of many tensors at once: exact where it matters, cheap elsewhere.

A sum of squares is right unless it under- or overflows, so it is tried first and checked against a
safe range; what falls outside is done again, scaled by a power of two, which changes no digit.
Float32 sums are short and add up in float64. Small tensors of one shape are stacked, so that a
thousand narrow layers do not cost a thousand calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Where a norm can be trusted, and the scale that brings what lies outside into it. In float32,
# below 1e-13 squares of elements that count fall under 1.2e-38 and are lost; above 1e18 they pass
# 3.4e38.
_SAFE = {torch.float32: (1e-13, 1e18), torch.float64: (1e-140, 1e150)}
_SCALE = {torch.float32: 2.0**100, torch.float64: 2.0**600}
_STACKED = 1 << 15  # elements: larger tensors are taken one by one
_CHUNK = 1 << 12  # elements summed in float32 before the float64 sum takes over


class ActivationStats(NamedTuple):
    """Forward quantities of one output."""

    rms: float
    input_dependence: float | None
    zero_fraction: float


def norms(tensors: Sequence[Tensor]) -> list[float]:
    """The 2-norm of each tensor, right from 1e-300 to 1e300."""
    results = [math.nan] * len(tensors)
    for shape_group in _groups(tensors):
        group = [tensors[i] for i in shape_group]
        if len(group) == 1:
            values = [_norm(group[0])]
        else:
            stacked = _wide(torch.stack(group)).flatten(1)
            values = torch.linalg.vector_norm(stacked, dim=1).tolist()
            _correct(values, stacked)
        for index, value in zip(shape_group, values, strict=True):
            results[index] = value
    return results


def _correct(values: list[float], stacked: Tensor) -> None:
    """Take the norms that are out of the safe range (0, small, large, not finite) again, scaled."""
    low, high = _SAFE[stacked.dtype]
    scale = _SCALE[stacked.dtype]
    for factor, wrong in (
        (scale, [i for i, value in enumerate(values) if value <= low]),
        (1 / scale, [i for i, value in enumerate(values) if not value < high]),
    ):
        if wrong:
            again = torch.linalg.vector_norm(stacked[wrong] * factor, dim=1).tolist()
            for i, value in zip(wrong, again, strict=True):
                values[i] = value / factor


def activation_stats(tensors: Sequence[Tensor]) -> list[ActivationStats]:
    """RMS, input dependence and fraction of exact zeros of each tensor (batch first).

    Input dependence is the variance across the batch / the mean square, averaged over features; a
    feature that is zero for every sample counts as 0, and a batch of one has none.
    """
    results: list[ActivationStats] = [None] * len(tensors)  # type: ignore[list-item]
    for shape_group in _groups(tensors):
        group = [tensors[i] for i in shape_group]
        stacked = torch.stack(group) if len(group) > 1 else group[0][None]
        for index, stats in zip(shape_group, _stats(_wide(stacked)), strict=True):
            low, high = _SAFE[torch.float32]
            results[index] = stats if low < stats.rms < high else _exact_stats(tensors[index])
    return results


def _stats(stacked: Tensor) -> list[ActivationStats]:
    """For a (tensors, batch, …) stack; the variance as E[x²] - E[x]² where it is not small."""
    batch = stacked.shape[1]
    mean = stacked.mean(1)
    squares = stacked.square()
    mean_square = squares.mean(1)
    nonzero = torch.sign(stacked, out=squares).square_().mean(1)
    dependence = _mean(1 - (mean.square() / mean_square).nan_to_num_(1.0))
    if bool((dependence < 1e-2).any()):  # that difference has lost its digits
        variance = torch.sub(stacked, mean[:, None], out=squares).square_().mean(1)
        dependence = _mean((variance / mean_square).nan_to_num_(0.0))
    columns = [torch.sqrt(_mean(mean_square)), dependence.clamp_(0.0, 1.0), 1 - _mean(nonzero)]
    rows = torch.stack(columns, 1).tolist()
    return [ActivationStats(rms, d if batch > 1 else None, z) for rms, d, z in rows]


def _exact_stats(tensor: Tensor) -> ActivationStats:
    """The same for one tensor, in float64, two passes."""
    x = tensor.double()
    if not x.numel():
        return ActivationStats(0.0, None, 0.0)
    zeros = float((x == 0).double().mean())
    if not bool(torch.isfinite(x).all()):
        rms = math.nan if bool(torch.isnan(x).any()) else math.inf
        return ActivationStats(rms, None, zeros)
    scale = float(x.abs().max())
    if scale == 0:
        return ActivationStats(0.0, 0.0 if x.shape[0] > 1 else None, zeros)
    x = x / scale
    rms = scale * float(x.square().mean().sqrt())
    if x.shape[0] < 2:
        return ActivationStats(rms, None, zeros)
    mean_square = x.square().mean(0)
    ratio = (x - x.mean(0)).square().mean(0) / mean_square.where(mean_square > 0, 1.0)
    return ActivationStats(rms, float(ratio.mean()), zeros)


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1) if x.dim() > 1 else x


def _norm(tensor: Tensor) -> float:
    dense = tensor.coalesce().values() if tensor.is_sparse else tensor
    flat = _wide(dense.reshape(-1))
    whole = flat.numel() // _CHUNK * _CHUNK
    parts = [torch.linalg.vector_norm(flat[:whole].view(-1, _CHUNK), dim=1)] if whole else []
    if whole < flat.numel():
        parts.append(torch.linalg.vector_norm(flat[whole:])[None])
    value = float(torch.linalg.vector_norm(torch.cat(parts), dtype=torch.float64)) if parts else 0.0
    values = [value]
    _correct(values, flat[None])
    return values[0]


def _wide_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(_wide_dtype(tensor.dtype))


def _groups(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the tensors that can be stacked: small, and alike in shape, dtype and device."""
    alike: dict[object, list[int]] = {}
    for index, tensor in enumerate(tensors):
        small = tensor.numel() <= _STACKED and not tensor.is_sparse
        alike.setdefault(
            (tensor.shape, tensor.dtype, tensor.device) if small else index, []
        ).append(index)
    return list(alike.values())
