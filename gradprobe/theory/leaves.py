"""What each kind of layer does to the moments of the signal, and to the gradient going back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from gradprobe.spec.network import InitSpec, LayerSpec
from gradprobe.spec.shapes import output_shape
from gradprobe.spec.vocabulary import layer_arguments
from gradprobe.theory import mean_field as theory
from gradprobe.theory.activations import ACTIVATIONS, activation
from gradprobe.theory.inits import init_moments
from gradprobe.theory.moments import Gain, Moments, Silent, Tangent

_SMALLEST_BATCH = 8  # values per channel, for a BatchNorm that theory can speak of
# Of product / square of images, at most, for BatchNorm: beyond it the padding's edge shows.
_ALIKE = 0.5
_SPREAD = 0.1  # of a channel's variance across the batch between channels, at most, for BatchNorm


class Leaf(NamedTuple):
    """A layer without layers inside, with the initialisations that apply to it."""

    layer: LayerSpec
    inits: Mapping[str, InitSpec]
    correlated: bool  # whether a BatchNorm will ask for the product of two inputs

    @property
    def kind(self) -> str:
        return self.layer.kind

    @property
    def arguments(self) -> Mapping[str, object]:
        return self.layer.arguments

    def number(self, key: str, default: float) -> float:
        """An argument that is one number."""
        value = self.arguments.get(key)
        return default if value is None else float(cast(float, value))

    def sizes(self, key: str, dimensions: int, default: int) -> tuple[int, ...]:
        """An argument of a convolution, for each dimension."""
        value = self.arguments.get(key, default)
        return cast(tuple[int, ...], value if isinstance(value, tuple) else (value,) * dimensions)

    def shape(self, moments: Moments) -> tuple[int, ...]:
        """The shape of the output."""
        shape = output_shape(self.kind, self.arguments, moments.shape)
        if shape is None:
            raise Silent(f"the shape of {self.kind}'s output is not known here")
        return shape

    def parameter(
        self, name: str, size: tuple[int, ...], default: tuple[float, float]
    ) -> tuple[float, float]:
        """Mean and mean square of a parameter's entries."""
        init = self.inits.get(name)
        if init is None:
            return default
        drawn = init_moments(init, size)
        if drawn is None:
            raise Silent(f"{self.kind}: init {init.name} is not random")
        return drawn


def _linear(leaf: Leaf, moments: Moments) -> tuple[Gain, Moments]:
    shape = leaf.shape(moments)
    return _weights(leaf, moments, (shape[-1], moments.shape[-1]), shape, len(shape) - 1)


def _conv(leaf: Leaf, moments: Moments) -> tuple[Gain, Moments]:
    shape = leaf.shape(moments)
    if leaf.arguments.get("padding_mode", "zeros") != "zeros":
        raise Silent(f"{leaf.kind}: padding_mode {leaf.arguments['padding_mode']}")
    kernel = leaf.sizes("kernel_size", len(shape) - 2, 1)
    channels = moments.shape[1] // cast(int, leaf.arguments.get("groups", 1))
    size = (shape[1], channels, *kernel)
    return _weights(leaf, moments, size, shape, 1, _inside(leaf, moments.shape, shape))


def _weights(
    leaf: Leaf,
    moments: Moments,
    size: tuple[int, ...],
    shape: tuple[int, ...],
    features: int,
    inside: float = 1.0,
) -> tuple[Gain, Moments]:
    """h = Wx + b: σ_w² = fan_in · Var(w), of which zero padding leaves ``inside``."""
    fan_in = math.prod(size[1:])
    default = 1 / (3 * fan_in)  # U(±1 / √fan_in), for weights and biases alike
    mean, square = leaf.parameter("weight", size, (0.0, default))
    if mean:
        raise Silent(f"{leaf.kind}: its weights do not have mean 0")
    shift, spread = 0.0, 0.0
    if leaf.arguments.get("bias", True):
        shift, spread = leaf.parameter("bias", size[:1], (0.0, default))
    weight = fan_in * square * inside
    out = Moments(
        shape,
        shift,
        weight * moments.square + spread,
        weight * moments.product + spread,
        gaussian=spread == shift**2 or shift == 0,
        features=features,
        tangent=Tangent(weight * moments.tangent.square, weight * moments.tangent.along, 0.0),
    )
    return Gain(weight, 2 / max(1, moments.width), True), out


def _activation(leaf: Leaf, moments: Moments) -> tuple[Gain, Moments]:
    if leaf.kind == "Identity":
        return Gain(), moments
    if not moments.gaussian:
        raise Silent(f"{leaf.kind} acts on a signal that is not Gaussian")
    if leaf.inits:
        raise Silent(f"{leaf.kind} has an init of its own")
    names = layer_arguments(leaf.kind).keys() - {"inplace", "num_parameters"}
    phi = activation(
        leaf.kind, {key: leaf.arguments[key] for key in leaf.arguments if key in names}
    )
    after = theory.moments(phi, moments.variance, moments.mean)
    both = after.square
    if leaf.correlated and moments.variance > 0:
        correlation = (moments.product - moments.mean**2) / moments.variance
        correlation = max(-1.0, min(1.0, correlation))
        both = theory.product(phi, moments.variance, correlation, moments.mean)
    out = moments._replace(
        mean=after.mean,
        square=after.square,
        product=both,
        gaussian=False,
        tangent=theory.push(phi, moments.variance, moments.mean, moments.tangent),
    )
    return Gain(after.slope, 3 * (after.kurtosis - 1) / moments.width), out


def _layer_norm(leaf: Leaf, moments: Moments) -> tuple[Gain, Moments]:
    features = _normalised(leaf, moments)
    eps = leaf.number("eps", 1e-5)
    scale = moments.variance + eps
    moved, along = moments.tangent, moments.tangent.along - moments.mean * moments.tangent.mean
    left = eps / scale  # of a change along the signal
    chi = theory.layer_norm_chi(moments.variance, features, eps)
    out = moments._replace(
        mean=0.0,
        square=moments.variance / scale,
        product=(moments.product - moments.mean**2) / scale,
        tangent=Tangent(
            (moved.square - moved.mean**2 - (1 + left) * along**2 / scale) / scale,
            along * left / scale,
            0.0,
        ),
    )
    return _affine(leaf, "elementwise_affine", chi, out)


def _rms_norm(leaf: Leaf, moments: Moments) -> tuple[Gain, Moments]:
    features = _normalised(leaf, moments)
    eps = leaf.number("eps", 1.1920929e-07)  # of float32
    scale = moments.square + eps
    moved, left = moments.tangent, eps / scale
    chi = theory.rms_norm_chi(moments.square, features, eps)
    out = moments._replace(
        mean=moments.mean / math.sqrt(scale),
        square=moments.square / scale,
        product=moments.product / scale,
        tangent=Tangent(
            (moved.square - (1 + left) * moved.along**2 / scale) / scale,
            moved.along * left / scale,
            (moved.mean - moments.mean * moved.along / scale) / math.sqrt(scale),
        ),
    )
    return _affine(leaf, "elementwise_affine", chi, out)


def _normalised(leaf: Leaf, moments: Moments) -> int:
    """How many numbers each sample's moments are taken over; they must span the features."""
    shape = leaf.arguments.get("normalized_shape", moments.shape[-1])
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if moments.features is not None and moments.features < len(moments.shape) - len(sizes):
        raise Silent(f"{leaf.kind} does not normalise over the channels")
    return math.prod(cast(tuple[int, ...], sizes))


def _batch_norm(leaf: Leaf, moments: Moments) -> tuple[Gain, Moments]:
    """Moments across the batch (and the positions) of each channel, axis 1."""
    values = moments.shape[0] * math.prod(moments.shape[2:])
    if moments.features not in (None, 1):
        raise Silent(f"{leaf.kind} does not normalise each feature by itself")
    if values < _SMALLEST_BATCH:
        raise Silent(f"{leaf.kind} over a batch of {values}")
    variance = moments.square - moments.product
    if moments.product - moments.mean**2 > _SPREAD * moments.square and not moments.gaussian:
        raise Silent(f"{leaf.kind} of features whose variance differs")
    if len(moments.shape) > 2 and moments.product > _ALIKE * moments.square:
        raise Silent(f"{leaf.kind} of images that look alike")
    eps = leaf.number("eps", 1e-5)
    chi = theory.batch_norm_chi(variance, values, eps)
    square = variance / (variance + eps)
    own = moments.tangent  # one input's, with the batch as it is
    share = variance / (moments.square or 1.0)
    out = moments._replace(
        mean=0.0,
        square=square,
        product=-square / (values - 1),
        tangent=Tangent(own.square / (variance + eps), own.along * share / (variance + eps), 0.0),
    )
    return _affine(leaf, "affine", chi, out, (3 / values) ** 2)


def _affine(
    leaf: Leaf, switch: str, chi: float, moments: Moments, spread: float = 0.0
) -> tuple[Gain, Moments]:
    """y = w ŷ + b, with w = 1 and b = 0 unless an init says otherwise.

    ``spread`` is the relative variance of chi beside that of s² over the width.
    """
    spread += 2 / moments.width
    if not leaf.arguments.get(switch, True):
        return Gain(chi, spread), moments
    size = (moments.width,)
    mean, square = leaf.parameter("weight", size, (1.0, 1.0))
    shift, shift_square = 0.0, 0.0
    if leaf.kind != "RMSNorm" and leaf.arguments.get("bias", True):
        shift, shift_square = leaf.parameter("bias", size, (0.0, 0.0))
    added = shift_square + 2 * mean * shift * moments.mean
    out = moments._replace(
        mean=mean * moments.mean + shift,
        square=square * moments.square + added,
        product=square * moments.product + added,
        gaussian=moments.gaussian and square == mean**2 and shift_square == shift**2,
        tangent=Tangent(
            square * moments.tangent.square,
            square * moments.tangent.along + mean * shift * moments.tangent.mean,
            mean * moments.tangent.mean,
        ),
    )
    return Gain(chi * square, spread), out


def _dropout(leaf: Leaf, moments: Moments) -> tuple[Gain, Moments]:
    """What stays is divided by 1 - p, and so is what comes back: squares by (1 - p)."""
    left = 1 - leaf.number("p", 0.5)
    if left == 1:
        return Gain(), moments
    if left <= 0:
        raise Silent(f"{leaf.kind} drops everything")
    gain = Gain(1 / left, (1 / left - 1) / moments.width)
    return gain, moments._replace(
        square=moments.square / left,
        gaussian=False,
        tangent=moments.tangent._replace(
            square=moments.tangent.square / left, along=moments.tangent.along / left
        ),
    )


def _inside(leaf: Leaf, shape: tuple[int, ...], out: tuple[int, ...]) -> float:
    """The share of a convolution's taps that meet the input and not its zero padding."""
    dimensions = len(shape) - 2
    share = 1.0
    for n, m, kernel, stride, padding, dilation in zip(
        shape[2:],
        out[2:],
        leaf.sizes("kernel_size", dimensions, 1),
        leaf.sizes("stride", dimensions, 1),
        leaf.sizes("padding", dimensions, 0),
        leaf.sizes("dilation", dimensions, 1),
        strict=True,
    ):
        # A tap meets the input at the outputs o with 0 ≤ o · stride + offset < n.
        offsets = [tap * dilation - padding for tap in range(kernel)]
        met = sum(
            max(0, min(m - 1, (n - 1 - offset) // stride) - max(0, -(offset // stride)) + 1)
            for offset in offsets
        )
        share *= met / (m * kernel)
    return share


Rule = Callable[[Leaf, Moments], tuple[Gain, Moments]]

RULES: dict[str, Rule] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    "Linear": _linear,
    **{f"Conv{n}d": _conv for n in (1, 2, 3)},
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    **{f"BatchNorm{n}d": _batch_norm for n in (1, 2, 3)},
    **dict.fromkeys(("Dropout", "Dropout1d", "Dropout2d", "Dropout3d"), _dropout),
    "Flatten": lambda leaf, moments: (
        Gain(),
        moments._replace(shape=leaf.shape(moments), features=1),
    ),
}
