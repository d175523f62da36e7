"""Norms and activation statistics of many tensors at once: exact where it matters, cheap elsewhere.

A float32 sum of squares is right unless it under- or overflows, so it is tried first and checked
against a safe range; what falls outside is done again in float64. Small tensors of one shape are
stacked, so that a thousand narrow layers do not cost a thousand calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Where the norm of a float32 tensor can be trusted: below, squares of elements that count fall
# under 1.2e-38 and are lost; above, they pass 3.4e38.
_SAFE = (1e-13, 1e18)
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
            if not all(_SAFE[0] < value < _SAFE[1] for value in values):
                values = _exact_norms(stacked)
        for index, value in zip(shape_group, values, strict=True):
            results[index] = value
    return results


def _exact_norms(stacked: Tensor) -> list[float]:
    """The 2-norm of each row of a matrix, each scaled by its largest element first."""
    if not stacked.shape[1]:
        return [0.0] * stacked.shape[0]
    largest = torch.linalg.vector_norm(stacked, ord=math.inf, dim=1)
    results: list[float] = largest.tolist()  # right for zeros, infinities and NaN
    usual = [i for i, value in enumerate(results) if 0 < value < math.inf]
    if usual:
        # In float64, where the reciprocal of a subnormal float32 is still finite.
        rows = stacked[usual].double() / largest[usual].double()[:, None]
        for index, norm in zip(usual, torch.linalg.vector_norm(rows, dim=1).tolist(), strict=True):
            results[index] *= norm
    return results


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
            trusted = _SAFE[0] < stats.rms < _SAFE[1]
            results[index] = stats if trusted else _exact_stats(tensors[index])
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
    dtype = _wide_dtype(dense.dtype)
    if dense.numel() <= _CHUNK or not dense.is_contiguous():
        value = float(torch.linalg.vector_norm(dense, dtype=dtype))
    else:
        flat = dense.view(-1)
        whole = flat.numel() // _CHUNK * _CHUNK
        parts = torch.linalg.vector_norm(flat[:whole].view(-1, _CHUNK), dim=1, dtype=dtype)
        value = float(torch.linalg.vector_norm(parts, dtype=torch.float64))
        if whole < flat.numel():
            rest = torch.linalg.vector_norm(flat[whole:], dtype=dtype)
            value = math.hypot(value, float(rest))
    return value if _SAFE[0] < value < _SAFE[1] else _exact_norms(dense.reshape(1, -1))[0]


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
