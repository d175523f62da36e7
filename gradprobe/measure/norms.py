"""Norms and activation statistics of many tensors at once: exact where it matters, cheap elsewhere.

A sum of squares is right unless it under- or overflows, so it is tried first and checked against a
safe range; what falls outside is done again, scaled by a power of two, which changes no digit.
Float32 sums are short and add up in float64. Small tensors of one shape are stacked, so that a
thousand narrow layers do not cost a thousand calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.model.sharded import is_sharded, of_all_parts, part_of, spread_of, whole
from gradprobe.model.tensors import in_float64, real, stored

# Where a norm can be trusted, and the scale that brings what lies outside into it. In float32,
# below 1e-13 squares of elements that count fall under 1.2e-38 and are lost; above 1e18 they pass
# 3.4e38.
_SAFE = {torch.float32: (1e-13, 1e18), torch.float64: (1e-140, 1e150)}
_SCALE = {torch.float32: 2.0**100, torch.float64: 2.0**600}
_STACKED = 1 << 15  # elements: larger tensors are taken one by one
_SLICE = 1 << 18  # elements of a larger tensor taken at once: what a core's cache holds
_CHUNK = 1 << 10  # elements summed in float32 before the float64 sum takes over


class ActivationStats(NamedTuple):
    """Forward quantities of one output."""

    rms: float
    input_dependence: float | None
    zero_fraction: float


def norms(tensors: Sequence[Tensor]) -> list[float]:
    """The 2-norm of each tensor, right from 1e-300 to 1e300; of a sharded one of all its parts."""
    sizes = _norms([part_of(tensor) for tensor in tensors])
    return _joined(tensors, sizes, lambda parts: math.hypot(*parts))


def _norms(tensors: Sequence[Tensor]) -> list[float]:
    results = [math.nan] * len(tensors)
    for alike in _groups(tensors):
        group = [tensors[i] for i in alike]
        if len(group) == 1:
            values = [_norm(group[0])]
        else:
            stacked = _wide(torch.stack(group)).reshape(len(group), -1)
            values = torch.linalg.vector_norm(stacked, dim=1).tolist()
            low, high = _SAFE[stacked.dtype]
            wrong = [i for i, value in enumerate(values) if not low < value < high]
            for i, value in zip(wrong, _scaled(stacked, wrong, values), strict=True):
                values[i] = value
        for index, value in zip(alike, values, strict=True):
            results[index] = value
    return results


def extremes(tensors: Sequence[Tensor]) -> list[tuple[float, float]]:
    """The smallest and the largest element of each real tensor, of which none is empty."""
    parts = [part_of(tensor) for tensor in tensors]
    results = [(math.inf, -math.inf)] * len(tensors)
    for alike in _groups(parts):
        group = [parts[i] for i in alike]
        if not group[0].numel():  # this process has nothing of a small one
            continue
        if len(group) == 1:  # faster than along a dimension
            low, high = (end[None] for end in group[0].aminmax())
        else:
            stacked = torch.stack(group).flatten(1)
            low, high = stacked.amin(1), stacked.amax(1)  # aminmax of rows takes ten times as long
        for index, ends in zip(alike, zip(low.tolist(), high.tolist(), strict=True), strict=True):
            results[index] = ends
    lows = _joined(tensors, [low for low, _ in results], min)
    return list(zip(lows, _joined(tensors, [high for _, high in results], max), strict=True))


def _joined(
    tensors: Sequence[Tensor], values: list[float], join: Callable[[list[float]], float]
) -> list[float]:
    """``values`` of this process's parts, of a sharded tensor those of all its parts joined.

    Tensors that are spread over the same processes in the same way are joined at once.
    """
    alike: dict[object, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if is_sharded(tensor):
            alike.setdefault(spread_of(tensor), []).append(index)
    for group in alike.values():
        every = of_all_parts(tensors[group[0]], [values[index] for index in group])
        for index, parts in zip(group, zip(*every, strict=True), strict=True):
            values[index] = join(list(parts))
    return values


def shares_near(tensors: Sequence[Tensor], low: float, high: float, distance: float) -> list[float]:
    """Of each tensor the share of elements within ``distance`` · (high - low) of one of the two."""
    shares = [0.0] * len(tensors)
    middle, half = (low + high) / 2, (0.5 - distance) * (high - low)
    for alike in _groups(tensors):
        group = [tensors[i] for i in alike]
        stacked = torch.stack(group) if len(group) > 1 else group[0][None]
        away = (stacked - middle if middle else stacked).abs() > half
        for index, share in zip(alike, away.flatten(1).float().mean(1).tolist(), strict=True):
            shares[index] = share
    return shares


def extremes_of(
    keyed: Iterable[tuple[int, nn.Parameter]],
) -> dict[int, tuple[float, float]]:
    """By key, the smallest and the largest element of each weight that is trained.

    A scale for each channel, of shape (C, 1, 1), is no weight.
    """
    weights = ((key, p) for key, p in keyed if p.requires_grad and p.dim() > 1 and p.numel())
    trained = {key: p.detach() for key, p in weights if p.dim() == 2 or max(p.shape) < p.numel()}
    dense = {key: p for key, p in trained.items() if p.layout is torch.strided}
    floats = {key: p for key, p in dense.items() if p.is_floating_point()}
    return dict(zip(floats, extremes(list(floats.values())), strict=True))


def weighted_rms(values: Tensor, gradient: Tensor) -> float | None:
    """‖g ⊙ x‖ / ‖g‖: the RMS of the values where the gradient is; ``None`` without a gradient."""
    values, gradient = whole(values), whole(gradient)
    if values.shape != gradient.shape or values.is_complex() or gradient.is_sparse:
        return None
    size = float(gradient.abs().max()) if gradient.numel() else 0.0
    if not size or not math.isfinite(size):
        return None
    unit = gradient / size  # so that no square underflows
    product, length = norms([unit * values, unit])
    return product / length


def _scaled(stacked: Tensor, wrong: list[int], values: list[float]) -> list[float]:
    """The norms of the rows ``wrong`` of a matrix: of small rows times a power of two, of large
    ones divided by it."""
    if not wrong or not stacked.shape[1]:
        return [values[i] for i in wrong]
    factors = [_factor(values[i], stacked.dtype) for i in wrong]
    column = torch.tensor(factors, dtype=stacked.dtype, device=stacked.device)[:, None]
    again = torch.linalg.vector_norm(stacked[wrong] * column, dim=1).tolist()
    return [value / factor for value, factor in zip(again, factors, strict=True)]


def _factor(value: float, dtype: torch.dtype) -> float:
    """What to multiply a tensor by whose plain norm ``value`` is not in the safe range."""
    return _SCALE[dtype] if value < 1 else 1 / _SCALE[dtype]


def _norm(tensor: Tensor) -> float:
    """The norm of one tensor, in short float32 sums that add up in float64."""
    flat = _wide(stored(tensor).reshape(-1))
    value = _chunked(flat)
    low, high = _SAFE[flat.dtype]
    if low < value < high or not flat.numel():
        return value
    factor = _factor(value, flat.dtype)
    return _chunked(flat * factor) / factor


def _chunked(flat: Tensor) -> float:
    whole = flat.numel() // _CHUNK * _CHUNK
    parts = [torch.linalg.vector_norm(flat[:whole].view(-1, _CHUNK), dim=1)] if whole else []
    if whole < flat.numel() or not parts:
        parts.append(torch.linalg.vector_norm(flat[whole:])[None])
    return float(torch.linalg.vector_norm(in_float64(torch.cat(parts))))


def activation_stats(tensors: Sequence[Tensor]) -> list[ActivationStats]:
    """RMS, input dependence and fraction of exact zeros of each tensor (batch first).

    Input dependence is the variance across the batch / the mean square, averaged over features; a
    feature that is zero for every sample counts as 0, and a batch of one has none.
    """
    results: list[ActivationStats] = [None] * len(tensors)  # type: ignore[list-item]
    for alike in _groups(tensors):
        group = [whole(tensors[i]) for i in alike]
        if group[0].dim() < 1 or not group[0].numel():
            group_stats = [_exact_stats(tensor) for tensor in group]
        elif group[0].numel() > 2 * _SLICE:
            group_stats = [_sliced_stats(tensor) or _exact_stats(tensor) for tensor in group]
        else:
            stacked = torch.stack(group) if len(group) > 1 else group[0][None]
            group_stats = [
                stats if stats is not None else _exact_stats(tensor)
                for stats, tensor in zip(_stats(_wide(stacked)), group, strict=True)
            ]
        for index, stats in zip(alike, group_stats, strict=True):
            results[index] = stats
    return results


def _sliced_stats(tensor: Tensor) -> ActivationStats | None:
    """The same as ``_stats`` of one tensor, a slice of its features at a time."""
    flat = tensor.reshape(tensor.shape[0], -1)
    parts = torch.split(flat, max(1, _SLICE // flat.shape[0]), dim=1)
    attempts = [(part.shape[1], _stats(_wide(part)[None])[0]) for part in parts]
    sliced = [(size, stats) for size, stats in attempts if stats is not None]
    if len(sliced) < len(attempts):
        return None

    def mean(read: Callable[[ActivationStats], float]) -> float:
        return math.fsum(size * read(stats) for size, stats in sliced) / flat.shape[1]

    dependence = mean(lambda s: s.input_dependence or 0.0) if flat.shape[0] > 1 else None
    rms = math.sqrt(mean(lambda s: s.rms**2))
    return ActivationStats(rms, dependence, mean(lambda s: s.zero_fraction))


def _stats(stacked: Tensor) -> list[ActivationStats | None]:
    """For a (tensors, batch, …) stack; ``None`` where a square under- or overflowed."""
    count, batch = stacked.shape[:2]
    mean = stacked.mean(1)
    squares = stacked.square()
    mean_square = squares.mean(1)
    nonzero = torch.sign(stacked, out=squares).square_().mean(1)
    lost = ((mean_square < _SAFE[torch.float32][0] ** 2) & (nonzero > 0)).reshape(count, -1).any(1)
    # The variance as E[x²] - E[x]² where that is not small, and else from the differences.
    dependence = _mean(1 - (mean.square() / mean_square).nan_to_num_(1.0))
    if bool((dependence < 1e-2).any()):
        variance = torch.sub(stacked, mean[:, None], out=squares).square_().mean(1)
        dependence = _mean((variance / mean_square).nan_to_num_(0.0))
    columns = [
        torch.sqrt(_mean(mean_square)),
        dependence.clamp_(0.0, 1.0),
        1 - _mean(nonzero),
        lost,
    ]
    rows = torch.stack([in_float64(column) for column in columns], 1).tolist()
    high = _SAFE[torch.float32][1]
    return [
        ActivationStats(rms, d if batch > 1 else None, zeros) if rms < high and not bad else None
        for rms, d, zeros, bad in rows
    ]


def _exact_stats(tensor: Tensor) -> ActivationStats:
    """The same for one tensor of any shape, in float64, two passes."""
    x = in_float64(tensor)
    if not x.numel():
        return ActivationStats(0.0, None, 0.0)
    zeros = float((x == 0).double().mean())
    if not bool(torch.isfinite(x).all()):
        rms = math.nan if bool(torch.isnan(x).any()) else math.inf
        return ActivationStats(rms, None, zeros)
    scale = float(x.abs().max())
    several = x.dim() > 0 and x.shape[0] > 1
    if scale == 0:
        return ActivationStats(0.0, 0.0 if several else None, zeros)
    rms = scale * float((x / scale).square().mean().sqrt())
    if not several:
        return ActivationStats(rms, None, zeros)
    # Each feature by its own scale: a small one is not a dead one.
    largest = x.abs().amax(0)
    x = x / largest.where(largest > 0, 1.0)
    mean_square = x.square().mean(0)
    ratio = (x - x.mean(0)).square().mean(0) / mean_square.where(mean_square > 0, 1.0)
    return ActivationStats(rms, float(ratio.mean()), zeros)


def _mean(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1).mean(1)


def _wide(tensor: Tensor) -> Tensor:
    tensor = real(tensor)
    return tensor if tensor.dtype is torch.float64 else tensor.to(torch.float32)


def _groups(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the tensors that can be stacked: small, and alike in shape, dtype and device."""
    alike: dict[object, list[int]] = {}
    for index, tensor in enumerate(tensors):
        small = tensor.numel() <= _STACKED and not tensor.is_sparse
        key = (tensor.shape, tensor.dtype, tensor.device) if small else index
        alike.setdefault(key, []).append(index)
    return list(alike.values())
