"""Activations as numpy functions, with the derivatives that autograd takes; a table, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]


class Activation(NamedTuple):
    """φ, its derivative as autograd has it, and where the two are not smooth."""

    f: Function
    slope: Function
    kinks: tuple[float, ...] = ()


def _sigmoid(h: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * h))


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _between(h: Array, low: float, high: float) -> Array:
    return np.where((h > low) & (h < high), 1.0, 0.0)


def _clamped(low: float, high: float) -> Activation:
    """clip(h, low, high): Hardtanh, ReLU6"""
    return Activation(
        lambda h: np.clip(h, low, high), lambda h: _between(h, low, high), (low, high)
    )


def _leaky(slope: float) -> Activation:
    return Activation(
        lambda h: np.where(h > 0, h, slope * h),
        lambda h: np.where(h > 0, 1.0, slope),
        (0.0,),
    )


def _elu(alpha: float, scale: float = 1.0, rate: float = 1.0) -> Activation:
    """scale · (h for h > 0, alpha (exp(h / rate) - 1) below): ELU, SELU, CELU"""

    def below(h: Array) -> Array:
        return np.minimum(h, 0.0) / rate

    return Activation(
        lambda h: scale * np.where(h > 0, h, alpha * np.expm1(below(h))),
        lambda h: scale * np.where(h > 0, 1.0, alpha / rate * np.exp(below(h))),
        (0.0,),
    )


def _gelu(approximate: str) -> Activation:
    if approximate == "tanh":
        a, b = math.sqrt(2 / math.pi), 0.044715

        def bell(h: Array) -> Array:
            return np.tanh(a * (h + b * h**3))

        return Activation(
            lambda h: 0.5 * h * (1 + bell(h)),
            lambda h: 0.5 * (1 + bell(h)) + 0.5 * h * (1 - bell(h) ** 2) * a * (1 + 3 * b * h * h),
        )

    def share(h: Array) -> Array:
        return np.asarray(0.5 * (1 + _erf(h / math.sqrt(2))))

    return Activation(
        lambda h: h * share(h),
        lambda h: share(h) + h * np.exp(-0.5 * h * h) / math.sqrt(2 * math.pi),
    )


def _mish() -> Activation:
    def inner(h: Array) -> Array:
        return np.tanh(np.logaddexp(0.0, h))

    return Activation(
        lambda h: h * inner(h),
        lambda h: inner(h) + h * (1 - inner(h) ** 2) * _sigmoid(h),
    )


def _softplus(beta: float, threshold: float) -> Activation:
    """log(1 + exp(βh)) / β, and h where βh > threshold"""
    return Activation(
        lambda h: np.where(beta * h > threshold, h, np.logaddexp(0.0, beta * h) / beta),
        lambda h: np.where(beta * h > threshold, 1.0, _sigmoid(beta * h)),
        (threshold / beta, 0.0) if beta > 0 else (0.0,),
    )


def _hardshrink(lambd: float) -> Activation:
    def outside(h: Array) -> Array:
        return np.where(np.abs(h) > lambd, 1.0, 0.0)

    return Activation(lambda h: h * outside(h), outside, (-lambd, lambd))


def _softshrink(lambd: float) -> Activation:
    return Activation(
        lambda h: np.sign(h) * np.maximum(np.abs(h) - lambd, 0.0),
        lambda h: np.where(np.abs(h) > lambd, 1.0, 0.0),
        (-lambd, lambd),
    )


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

# By the name of the torch.nn class, from its arguments.
ACTIVATIONS: dict[str, Callable[[Mapping[str, Any]], Activation]] = {
    "Identity": lambda a: Activation(lambda h: h, np.ones_like),
    "ReLU": lambda a: _leaky(0.0),
    "ReLU6": lambda a: _clamped(0.0, 6.0),
    "LeakyReLU": lambda a: _leaky(a.get("negative_slope", 0.01)),
    "PReLU": lambda a: _leaky(a.get("init", 0.25)),
    "ELU": lambda a: _elu(a.get("alpha", 1.0)),
    "CELU": lambda a: _elu(a.get("alpha", 1.0), 1.0, a.get("alpha", 1.0)),
    "SELU": lambda a: _elu(_SELU_ALPHA, _SELU_SCALE),
    "GELU": lambda a: _gelu(a.get("approximate", "none")),
    "SiLU": lambda a: Activation(
        lambda h: h * _sigmoid(h),
        lambda h: _sigmoid(h) * (1 + h * (1 - _sigmoid(h))),
    ),
    "Mish": lambda a: _mish(),
    "Tanh": lambda a: Activation(np.tanh, lambda h: 1 - np.tanh(h) ** 2),
    "Sigmoid": lambda a: Activation(_sigmoid, lambda h: _sigmoid(h) * (1 - _sigmoid(h))),
    "LogSigmoid": lambda a: Activation(lambda h: -np.logaddexp(0.0, -h), lambda h: _sigmoid(-h)),
    "Softplus": lambda a: _softplus(a.get("beta", 1.0), a.get("threshold", 20.0)),
    "Softsign": lambda a: Activation(
        lambda h: h / (1 + np.abs(h)), lambda h: (1 + np.abs(h)) ** -2.0, (0.0,)
    ),
    "Softshrink": lambda a: _softshrink(a.get("lambd", 0.5)),
    "Hardshrink": lambda a: _hardshrink(a.get("lambd", 0.5)),
    "Hardsigmoid": lambda a: Activation(
        lambda h: np.clip(h / 6 + 0.5, 0.0, 1.0),
        lambda h: _between(h, -3.0, 3.0) / 6,
        (-3.0, 3.0),
    ),
    "Hardswish": lambda a: Activation(
        lambda h: h * np.clip(h / 6 + 0.5, 0.0, 1.0),
        lambda h: np.where(h >= 3, 1.0, _between(h, -3.0, 3.0) * (h / 3 + 0.5)),
        (-3.0, 3.0),
    ),
    "Hardtanh": lambda a: _clamped(a.get("min_val", -1.0), a.get("max_val", 1.0)),
    "Tanhshrink": lambda a: Activation(lambda h: h - np.tanh(h), lambda h: np.tanh(h) ** 2),
    "Threshold": lambda a: Activation(
        lambda h: np.where(h > a["threshold"], h, a["value"]),
        lambda h: np.where(h > a["threshold"], 1.0, 0.0),
        (a["threshold"],),
    ),
}


def activation(kind: str, arguments: Mapping[str, Any] | None = None) -> Activation:
    """The activation of the ``torch.nn`` class ``kind``; the same object for the same arguments.

    Raises:
        KeyError: there is none of that name.
    """
    return _activation(kind, tuple(sorted((arguments or {}).items())))


@lru_cache(maxsize=256)
def _activation(kind: str, arguments: tuple[tuple[str, Any], ...]) -> Activation:
    return ACTIVATIONS[kind](dict(arguments))
