"""Initialisations as moments: the mean and the mean square of the entries that they draw."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

from gradprobe.spec.network import InitSpec


def init_moments(init: InitSpec, size: tuple[int, ...]) -> tuple[float, float] | None:
    """Mean and mean square of the entries of a tensor of ``size`` filled by ``init``.

    ``None`` for ``eye`` and ``dirac``, whose entries are not independent at all, and for a normal
    that is cut off where it has nothing, whose entries are all one number.
    """
    rule = INIT_MOMENTS.get(init.name)
    with contextlib.suppress(ZeroDivisionError):
        return rule(dict(init.arguments), size) if rule else None
    return None


def _fans(size: tuple[int, ...]) -> tuple[int, int]:
    field = math.prod(size[2:])
    return size[1] * field, size[0] * field


def _xavier(a: dict[str, Any], size: tuple[int, ...]) -> tuple[float, float]:
    return 0.0, 2 * a.get("gain", 1.0) ** 2 / sum(_fans(size))


_GAINS_SQUARED: dict[str, Callable[[float], float]] = {  # torch.nn.init.calculate_gain
    "relu": lambda a: 2.0,
    "leaky_relu": lambda a: 2 / (1 + a * a),
    "tanh": lambda a: (5 / 3) ** 2,
    "selu": lambda a: (3 / 4) ** 2,
}


def _kaiming(a: dict[str, Any], size: tuple[int, ...]) -> tuple[float, float]:
    rule = _GAINS_SQUARED.get(a.get("nonlinearity", "leaky_relu"))
    gain = rule(a.get("a", 0.0)) if rule else 1.0
    fan_in, fan_out = _fans(size)
    fan = fan_out if a.get("mode", "fan_in") == "fan_out" else fan_in
    return 0.0, gain / fan


def _orthogonal(a: dict[str, Any], size: tuple[int, ...]) -> tuple[float, float]:
    """The shorter side's vectors have norm ``gain``."""
    return 0.0, a.get("gain", 1.0) ** 2 / max(size[0], math.prod(size[1:]))


def _variance_scaling(a: dict[str, Any], size: tuple[int, ...]) -> tuple[float, float]:
    fan_in, fan_out = _fans(size)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    return 0.0, a.get("scale", 1.0) / max(1.0, fans[a.get("mode", "fan_in")])


def _uniform(a: dict[str, Any], size: tuple[int, ...]) -> tuple[float, float]:
    low, high = a.get("a", 0.0), a.get("b", 1.0)
    return (low + high) / 2, (low * low + low * high + high * high) / 3


def _normal(a: dict[str, Any], size: tuple[int, ...]) -> tuple[float, float]:
    mean, std = a.get("mean", 0.0), a.get("std", 1.0)
    return mean, mean**2 + std**2


def _trunc_normal(a: dict[str, Any], size: tuple[int, ...]) -> tuple[float, float]:
    """A normal cut off at the absolute values a and b."""
    mean, std = a.get("mean", 0.0), a.get("std", 1.0)
    low, high = (a.get("a", -2.0) - mean) / std, (a.get("b", 2.0) - mean) / std
    density = [math.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in (low, high)]
    inside = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    shift = (density[0] - density[1]) / inside
    variance = 1 + (low * density[0] - high * density[1]) / inside - shift**2
    centre = mean + std * shift
    return centre, centre**2 + std**2 * variance


def _sparse(a: dict[str, Any], size: tuple[int, ...]) -> tuple[float, float]:
    """In each column a share of the entries, rounded up, is 0."""
    zeros = min(size[0], math.ceil(a["sparsity"] * size[0]))
    return 0.0, (1 - zeros / size[0]) * a.get("std", 0.01) ** 2


INIT_MOMENTS: dict[str, Callable[[dict[str, Any], tuple[int, ...]], tuple[float, float]]] = {
    "zeros": lambda a, size: (0.0, 0.0),
    "ones": lambda a, size: (1.0, 1.0),
    "constant": lambda a, size: (a["val"], a["val"] ** 2),
    "uniform": _uniform,
    "normal": _normal,
    "trunc_normal": _trunc_normal,
    "xavier_uniform": _xavier,
    "xavier_normal": _xavier,
    "kaiming_uniform": _kaiming,
    "kaiming_normal": _kaiming,
    "orthogonal": _orthogonal,
    "sparse": _sparse,
    "variance_scaling": _variance_scaling,
}
