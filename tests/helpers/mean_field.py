"""Further results of mean-field theory, made of the package's expectations: held to papers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gradprobe.theory.activations import Activation
from gradprobe.theory.mean_field import (
    _quadrature,
    chi,
    fixed_length,
    length_map,
    moments,
    product,
)


def correlation_map(phi: Activation, c: float, q: float, weight: float, bias: float = 0.0) -> float:
    """(σ_w² E[φ(h)φ(h')] + σ_b²) / (σ_w² E[φ(h)²] + σ_b²), h and h' of length q, correlation c.

    The correlation of two inputs one layer on (Schoenholz et al. 2017).
    """
    return (weight * product(phi, q, c) + bias) / length_map(phi, q, weight, bias)


def fixed_correlation(phi: Activation, weight: float, bias: float = 0.0) -> float:
    """c*, the stable fixed point of the correlation map at q*: 1 in the ordered phase (χ₁ ≤ 1)."""
    q = fixed_length(phi, weight, bias)
    if q == 0 or math.isinf(q) or chi(phi, q, weight) <= 1:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if correlation_map(phi, middle, q, weight, bias) > middle:
            low = middle
        else:
            high = middle
    return (low + high) / 2


class DepthScales(NamedTuple):
    """Layers over which a deviation falls by e; ``inf`` where it does not fall exponentially."""

    length: float  # ξ_q, of q from q*
    correlation: float  # ξ_c, of c from c*
    gradient: float  # ξ_∇, of the squared gradient norm; negative where it grows


def depth_scales(phi: Activation, weight: float, bias: float = 0.0) -> DepthScales:
    """ξ_q, ξ_c and ξ_∇ (Schoenholz et al. 2017).

    1/ξ_q = -ln(χ₁ + σ_w² E[φ''φ]), written as -ln(σ_w² E[z φ φ'] / √q*) by Stein's lemma, which
    needs no second derivative; 1/ξ_c = -ln(σ_w² E[φ'(h)φ'(h')]) at c*; 1/ξ_∇ = -ln χ₁.
    """
    q = max(fixed_length(phi, weight, bias), 1e-12)
    if math.isinf(q):
        return DepthScales(math.inf, math.inf, _scale(chi(phi, q, weight)))
    h, weights = _quadrature(phi, np.array(0.0), math.sqrt(q))
    of_length = weight * float(weights @ (h * phi.f(h) * phi.slope(h))) / q
    c = fixed_correlation(phi, weight, bias)
    return DepthScales(
        _scale(of_length),
        _scale(weight * product(phi._replace(f=phi.slope), q, c)),
        _scale(chi(phi, q, weight)),
    )


def _scale(factor: float) -> float:
    logarithm = math.log(factor) if factor > 0 else -math.inf
    return -1 / logarithm if logarithm else math.inf


def batch_norm_plain_chi(phi: Activation) -> float:
    """E[φ'²] / (E[φ²] - E[φ]²): χ of Linear, BatchNorm, φ in a large batch, whatever the init.

    BatchNorm hands φ a standard normal z for each input; the next Linear gives σ_w² Var[φ(z)]
    across the batch, by which BatchNorm divides the χ of the layer, σ_w² E[φ'(z)²]. For ReLU
    π/(π-1), a growth of the norm by 1.211 (Yang et al. 2019, arXiv 1902.08129).
    """
    found = moments(phi, 1.0)
    return found.slope / (found.square - found.mean**2)
