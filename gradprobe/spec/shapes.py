"""The shape of a layer's output, by formula, for the layers that most networks are made of.

The planner asks here first. torch would answer on the meta device, and does for all that is not
here, but its first answer imports the compiler, which takes as long as torch itself. A test holds
each formula against the meta device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from gradprobe.spec.layers import Trait, kinds

Shape = tuple[int, ...]
Formula = Callable[[Mapping[str, Any], Shape], Shape | None]


def output_shape(kind: str, arguments: Mapping[str, Any], shape: Shape) -> Shape | None:
    """The output's shape (batch first); ``None`` where only torch can tell, or would refuse."""
    formula = FORMULAS.get(kind)
    return formula(arguments, shape) if formula and len(shape) > 1 else None


def _recurrent(arguments: Mapping[str, Any], shape: Shape) -> Shape | None:
    if len(shape) != 3:
        return None
    width = arguments.get("proj_size") or arguments["hidden_size"]
    return (*shape[:2], width * (2 if arguments.get("bidirectional") else 1))


def _batch_norm(dimensions: tuple[int, ...]) -> Formula:
    def formula(arguments: Mapping[str, Any], shape: Shape) -> Shape | None:
        values = shape[0] * math.prod(shape[2:])  # per channel: one is refused
        return shape if len(shape) in dimensions and values > 1 else None

    return formula


def _window(dimensions: int, *, channels: bool) -> Formula:
    """Convolution and pooling: floor((n + 2·padding - dilation·(kernel - 1) - 1) / stride) + 1."""

    def formula(arguments: Mapping[str, Any], shape: Shape) -> Shape | None:
        if len(shape) != dimensions + 2 or arguments.get("ceil_mode"):
            return None
        kernel = _each(arguments["kernel_size"], dimensions)
        stride = _each(arguments.get("stride") or (1 if channels else kernel), dimensions)
        padding = _each(arguments.get("padding", 0), dimensions)
        dilation = _each(arguments.get("dilation", 1), dimensions)
        if kernel is None or stride is None or padding is None or dilation is None:
            return None
        if not channels and any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            return None
        sizes = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(shape[2:], kernel, stride, padding, dilation, strict=True)
        )
        if min(sizes) < 1:
            return None
        return (shape[0], arguments["out_channels"] if channels else shape[1], *sizes)

    return formula


def _adaptive(dimensions: int) -> Formula:
    def formula(arguments: Mapping[str, Any], shape: Shape) -> Shape | None:
        sizes = _each(arguments["output_size"], dimensions)
        return (*shape[:2], *sizes) if sizes and len(shape) == dimensions + 2 else None

    return formula


def _each(value: Any, dimensions: int) -> Shape | None:
    if isinstance(value, int):
        return (value,) * dimensions
    return tuple(value) if isinstance(value, tuple) and len(value) == dimensions else None


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(kinds(Trait.SAME_SHAPE), lambda arguments, shape: shape),
    "Linear": lambda arguments, shape: (*shape[:-1], arguments["out_features"]),
    "Embedding": lambda arguments, shape: (*shape, arguments["embedding_dim"]),
    "RNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "MultiheadAttention": lambda arguments, shape: shape if len(shape) == 3 else None,
    "TransformerEncoderLayer": lambda arguments, shape: shape if len(shape) == 3 else None,
    "Flatten": lambda arguments, shape: None if arguments else (shape[0], math.prod(shape[1:])),
    "BatchNorm1d": _batch_norm((2, 3)),
    "BatchNorm2d": _batch_norm((4,)),
    "BatchNorm3d": _batch_norm((5,)),
    **{f"Conv{n}d": _window(n, channels=True) for n in (1, 2, 3)},
    **{f"MaxPool{n}d": _window(n, channels=False) for n in (1, 2, 3)},
    **{f"AvgPool{n}d": _window(n, channels=False) for n in (1, 2, 3)},
    **{f"AdaptiveAvgPool{n}d": _adaptive(n) for n in (1, 2, 3)},
    **{f"AdaptiveMaxPool{n}d": _adaptive(n) for n in (1, 2, 3)},
}
