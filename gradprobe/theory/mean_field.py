"""Mean-field theory of wide random networks: what a layer does to signal and gradient, on paper.

In a wide layer h = Wx + b with independent weights of mean 0 and variance σ_w² / fan_in and biases
of variance σ_b², the units of h are Gaussian of variance q, and all that is asked here is an
expectation over one or two Gaussians. Poole et al. 2016 (arXiv 1606.05340) and Schoenholz et al.
2017 (arXiv 1611.01232); ``weight`` below is σ_w², ``bias`` is σ_b². Expectations are taken by
Gauss-Legendre quadrature between the kinks of the activation, to 1e-7 or better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gradprobe.theory.activations import Activation, Array
from gradprobe.theory.moments import Tangent

_LARGEST = 1e12  # a length beyond it has diverged
_SMALLEST = 1e-12  # a length below it has come to 0


# ---- expectations

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(10)
_PANELS = np.linspace(-9.0, 9.0, 13)  # in units of the standard deviation; 1e-18 lies outside
_AROUND = np.array([0.0, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0])  # of a kink, in units of h
_LEAST_STD = 1e-9  # an activation at length 0 is met from nearby: E[ReLU'²] stays 1/2


def _quadrature(phi: Activation, mean: Array, std: float) -> tuple[Array, Array]:
    """Points h and weights for N(mean, std²), along a last axis added to the shape of ``mean``."""
    std = max(std, _LEAST_STD)
    offsets = np.concatenate([-_AROUND[:0:-1], _AROUND])
    marks = np.concatenate([kink + offsets for kink in phi.kinks or (0.0,)])
    inner = np.clip((marks - mean[..., None]) / std, _PANELS[0], _PANELS[-1])
    outer = np.broadcast_to(_PANELS, (*mean.shape, len(_PANELS)))
    breaks = np.sort(np.concatenate([inner, outer], axis=-1), axis=-1)
    half = np.diff(breaks)[..., None] / 2
    z = breaks[..., :-1, None] + half * (1 + _NODES)
    weights = half * _NODE_WEIGHTS * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    flat = (*mean.shape, -1)
    return (mean[..., None, None] + std * z).reshape(flat), weights.reshape(flat)


class Moments(NamedTuple):
    """Expectations over h ~ N(mean, variance)."""

    mean: float  # E[φ]
    square: float  # E[φ²]
    slope: float  # E[φ'²]
    kurtosis: float  # E[φ'⁴] / E[φ'²]²: 1 where the slope is the same everywhere


@lru_cache(maxsize=65536)
def moments(phi: Activation, variance: float, mean: float = 0.0) -> Moments:
    """Mean, mean square and mean squared slope of φ(h), h ~ N(mean, variance)."""
    h, weights = _quadrature(phi, np.array(mean), math.sqrt(variance))
    value, slope = phi.f(h), phi.slope(h) ** 2
    squared = float(weights @ slope)
    fourth = float(weights @ slope**2)
    kurtosis = fourth / squared**2 if squared > 0 else 1.0
    return Moments(float(weights @ value), float(weights @ value**2), squared, kurtosis)


@lru_cache(maxsize=65536)
def push(phi: Activation, variance: float, mean: float, tangent: Tangent) -> Tangent:
    """What becomes of ``tangent`` of h ~ N(mean, variance) under φ: ẏ = φ'(h) ḣ.

    ḣ is split into a line in h and a rest that is independent of h.
    """
    h, weights = _quadrature(phi, np.array(mean), math.sqrt(variance))
    slope = (tangent.along - mean * tangent.mean) / variance if variance else 0.0
    rest = max(0.0, tangent.square - tangent.mean**2 - slope**2 * variance)
    moved = phi.slope(h) * (tangent.mean + slope * (h - mean))
    return Tangent(
        float(weights @ moved**2) + rest * moments(phi, variance, mean).slope,
        float(weights @ (phi.f(h) * moved)),
        float(weights @ moved),
    )


@lru_cache(maxsize=4096)
def product(phi: Activation, variance: float, correlation: float, mean: float = 0.0) -> float:
    """E[φ(h)φ(h')] for h, h' ~ N(mean, variance) of that correlation."""
    std = math.sqrt(variance)
    centre = np.array(mean)
    h, weights = _quadrature(phi, centre, std)
    rest = math.sqrt(max(0.0, 1 - correlation * correlation))
    expected = centre + correlation * (h - centre)  # E[h' | h]
    other, inner = _quadrature(phi, expected, std * rest)
    return float(weights @ (phi.f(h) * (phi.f(other) * inner).sum(-1)))


# ---- depth: lengths, correlations, gradients


def length_map(phi: Activation, q: float, weight: float, bias: float = 0.0) -> float:
    """σ_w² E[φ(√q z)²] + σ_b²: the variance of the next layer's h (Poole et al. 2016)."""
    return weight * moments(phi, q).square + bias


def fixed_length(phi: Activation, weight: float, bias: float = 0.0, start: float = 1.0) -> float:
    """q*, where the length map comes to rest from ``start``; 0 or ``inf`` are possible too."""

    def grows(q: float) -> bool:
        return length_map(phi, q, weight, bias) > q

    up = grows(start)
    step, inside, outside = (1.25 if up else 0.8), start, start
    while grows(outside) == up:
        inside, outside = outside, outside * step
        if outside > _LARGEST:
            return math.inf
        if outside < _SMALLEST:
            return 0.0
    return _border(lambda q: grows(q) == up, inside, outside, 50)


def _border(holds: Callable[[float], bool], inside: float, outside: float, halvings: int) -> float:
    """Where between ``inside``, where it holds, and ``outside`` it ends, by geometric means."""
    for _ in range(halvings):
        middle = math.sqrt(inside * outside)
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return math.sqrt(inside * outside)


def chi(phi: Activation, q: float, weight: float) -> float:
    """χ = σ_w² E[φ'(√q z)²]: the factor of the *squared* gradient norm going back through a layer.

    At q = q* it is χ₁, and χ₁ = 1 is the edge of chaos (Schoenholz et al. 2017).
    """
    return weight * moments(phi, min(q, _LARGEST)).slope


def chi_fixed(phi: Activation, weight: float, bias: float = 0.0, start: float = 1.0) -> float:
    """χ₁ = χ at the fixed point of the length map."""
    return chi(phi, fixed_length(phi, weight, bias, start), weight)


def edge_of_chaos(phi: Activation, bias: float = 0.0) -> float | None:
    """The σ_w at which χ₁ = 1, between 0.05 and 20; ``None`` where χ₁ does not cross 1.

    Inputs of unit variance and a linear stem start the length map at σ_w² + σ_b².
    """

    def chaotic(sigma: float) -> bool:
        return chi_fixed(phi, sigma**2, bias, sigma**2 + bias) > 1

    low, high = 0.05, 20.0
    if chaotic(low) or not chaotic(high):
        return None
    return _border(lambda sigma: not chaotic(sigma), low, high, 30)


# ---- blocks and normalisations: factors of the squared gradient norm


def residual_chi(
    branch: float, skip_scale: float = 1.0, branch_scale: float = 1.0, skip: float = 1.0
) -> float:
    """s² χ_S + b² χ_F for y = s·S(x) + b·F(x) (Yang & Schoenholz 2017, arXiv 1712.08969).

    The cross term 2sb E[vᵀJ_S J_Fᵀv] / ‖v‖² is 0 as soon as one of the two holds a layer of
    independent weights of mean 0.
    """
    return skip_scale**2 * skip + branch_scale**2 * branch


def layer_norm_chi(variance: float, features: int, eps: float = 1e-5) -> float:
    """∂L/∂x = (δ - mean(δ) - y·mean(δ y)) / s: 1/s² less two of the n directions.

    ``variance`` of the features of a sample, s² = variance + eps. With eps the direction of y is
    not lost wholly (the derivative, by hand).
    """
    share = eps / (variance + eps)
    return (1 - (2 - share**2) / features) / (variance + eps)


def rms_norm_chi(square: float, features: int, eps: float = 1e-5) -> float:
    """As ``layer_norm_chi``, with the mean square in place of the variance: one direction less."""
    share = eps / (square + eps)
    return (1 - (1 - share**2) / features) / (square + eps)


def batch_norm_chi(variance: float, batch: int, eps: float = 1e-5) -> float:
    """E[1/s²] less two of the batch's directions: (B - 2) / (B - 3) / (variance + eps).

    ``variance`` across the batch of one Gaussian feature. s² is variance · χ²_{B-1} / B, so
    E[1/s²] = B / (B - 3) / variance, and δ loses its mean and its part along y, 2 of B directions.
    In a linear network this is the growth by (B - 2) / (B - 3) of Yang et al. 2019 (arXiv
    1902.08129), up to 1/B.
    """
    return (batch - 2) / (batch - 3) / (variance + eps)
