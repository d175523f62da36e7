"""``NetworkSpec`` → what mean-field theory says about each row, without building anything.

The moments of the signal are carried forward, row by row and at finite depth (``theory.py`` has
the formulas), and each row's factor of the gradient norm follows from them. Where a layer has no
closed form the rows from there on have a reason in place of a factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple, cast

from gradprobe.spec.layers import Trait, kinds
from gradprobe.spec.network import InitSpec, LayerSpec, NetworkSpec, walk
from gradprobe.spec.options import DEFAULT_BATCH_SIZE
from gradprobe.spec.shapes import output_shape
from gradprobe.spec.vocabulary import layer_arguments
from gradprobe.theory import mean_field as theory
from gradprobe.theory.activations import ACTIVATIONS, activation
from gradprobe.theory.inits import init_moments
from gradprobe.theory.mean_field import Tangent
from gradprobe.theory.prediction import RowPrediction

_SMALLEST_BATCH = 8  # values per channel, for a BatchNorm that theory can speak of
_ALIKE = (
    0.5  # product / square of images at most, for BatchNorm: the padding's edge shows beyond it
)
_SPREAD = 0.1  # of a channel's variance across the batch between channels, at most, for BatchNorm
_WEIGHTED = kinds(Trait.WEIGHTED)


_ASTRAY = 0.5  # a tangent with a smaller share along the signal is given up
_NOTHING = Tangent(0.0, 0.0, 0.0)


class Signal(NamedTuple):
    """What theory knows of a tensor: its shape, batch first, and moments over units and samples.

    ``product`` is E[x_a x_b] of one unit for two inputs a and b. ``features`` is the axis whose
    units have weights of their own, ``None`` where each number was drawn by itself. ``tangent`` is
    what a small change along the signal, made at the start of the segment, has become.
    """

    shape: tuple[int, ...]
    mean: float = 0.0
    square: float = 1.0
    product: float = 0.0
    gaussian: bool = True
    features: int | None = None
    tangent: Tangent = Tangent(1.0, 1.0, 0.0)

    @property
    def along(self) -> float:
        """The share of the tangent that lies along the signal, from 0 to 1."""
        whole = self.tangent.square * self.square
        return abs(self.tangent.along) / math.sqrt(whole) if whole > 0 else 0.0

    @property
    def variance(self) -> float:
        """Over the units of one sample."""
        return max(0.0, self.square - self.mean**2)

    @property
    def width(self) -> int:
        """Number of units with weights of their own."""
        if self.features is None:
            return math.prod(self.shape[1:])
        return self.shape[self.features]


class Gain(NamedTuple):
    """A layer's factor of the squared gradient norm, going back, and that factor's relative
    variance between networks of finite width (``mixes``: it holds random weights of mean 0)."""

    chi: float = 1.0
    variance: float = 0.0
    mixes: bool = False

    def then(self, other: Gain) -> Gain:
        """The gain of this layer followed by ``other``."""
        return Gain(self.chi * other.chi, self.variance + other.variance, self.mixes or other.mixes)


class _Silent(Exception):  # noqa: N818  it is no error
    """Theory has nothing to say about a layer; the argument says why."""


def predict(
    spec: NetworkSpec, batch_size: int | None = None, signal: Signal | None = None
) -> tuple[RowPrediction, ...]:
    """A prediction for each row that a probe of ``spec`` reports, in the same order and by name.

    Args:
        spec: Linear or convolution layers (σ_w² = fan_in · Var(w)), activations that act element
            by element, LayerNorm, RMSNorm, BatchNorm, dropout, flatten, residual and repeat.
        batch_size: what BatchNorm sees; default the spec's.
        signal: moments of the input; default independent standard normal numbers.

    The deviation follows Hanin & Nica 2018 (arXiv 1812.05994): each layer of n units multiplies the
    squared norm by a random factor of relative variance (3κ - 1) / n, κ = E[φ'⁴] / E[φ'²]², 5/n for
    ReLU, where all inputs look alike; less where they do not. ``benchmarks/theory.py`` measures it.
    """
    size = batch_size or spec.input.batch_size or DEFAULT_BATCH_SIZE
    walker = _Walker(spec)
    behind: str | None = None
    if spec.input.tokens is not None:
        behind = "its input is tokens"
    current = _restarted(signal or Signal((size, *spec.input.shape)))
    rows: list[RowPrediction] = []
    walked: list[_Walked] = []
    for name, layers in _rows(spec.layers):
        if behind is not None:
            rows.append(RowPrediction(name, None, 0.0, behind))
            continue
        try:
            gain, current = walker.chain(layers, current)
        except _Silent as silent:
            rows.append(RowPrediction(name, None, 0.0, str(silent)))
            behind = f"behind row {name}: {silent}"
            continue
        fresh = current.along < _ASTRAY
        current = _restarted(current) if fresh else current
        numbers = math.prod(current.shape[1:])
        walked.append(_Walked(name, gain, numbers, numbers * current.tangent.square, fresh))
    return (*_corrected(walked), *rows)


class _Walked(NamedTuple):
    """A row with a gain, the numbers in its output, and the tangent's squared norm there."""

    name: str
    gain: Gain
    size: int
    tangent: float
    fresh: bool  # the tangent was started anew


def _restarted(signal: Signal) -> Signal:
    return signal._replace(tangent=Tangent(signal.square, signal.square, signal.mean))


def _corrected(walked: list[_Walked]) -> list[RowPrediction]:
    """The rows' factors, with what comes back along the signal's own direction.

    A gradient of random direction has 1/n of its square along J x̂, and x̂ gets |J x̂|² of that: in
    a residual stack whose branch has a mean the signal grows faster than the gradient of mean-field
    theory, and after some ten blocks that one direction outweighs the n - 1 others.
    """
    factors: list[RowPrediction] = []
    bulk = excess_above = 0.0  # ln of the squared reach without; ln of the rest, at the row above
    same = True  # whether the tangent of this row is the one that arrives at the top
    for row, below in zip(reversed(walked), [*walked[-2::-1], None], strict=False):
        chi, deviation = row.gain.chi, math.sqrt(row.gain.variance) / 2  # of the norm: a half
        same = same and not row.fresh
        factor = math.sqrt(chi)
        if chi <= 0:
            same = False
        elif below is not None and same and below.tangent > 0:
            bulk += math.log(chi)
            top = walked[-1]
            share = math.log(top.tangent / below.tangent / top.size) - bulk
            excess = math.log1p(max(0.0, math.exp(min(share, 700.0)) - 1 / below.size))
            factor *= math.exp((excess - excess_above) / 2)
            excess_above = excess
        factors.append(RowPrediction(row.name, factor, deviation))
    return factors[::-1]


def _rows(layers: tuple[LayerSpec, ...]) -> Iterator[tuple[str, tuple[LayerSpec, ...]]]:
    """Names and layers of the rows, as ``build`` makes them."""
    for index, layer in enumerate(layers):
        name = layer.name or str(index)
        if layer.kind == "repeat":
            for iteration in range(layer.times):
                yield f"{name}.{iteration}", layer.branches[0]
        else:
            yield name, (layer,)


class _Walker:
    """Carries a signal through layers; ``correlated`` only where a BatchNorm will ask for it."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        kinds = {layer.kind for layer, _ in walk(spec.layers)}
        self.correlated = any(kind.startswith("BatchNorm") for kind in kinds)

    def chain(self, layers: tuple[LayerSpec, ...], signal: Signal) -> tuple[Gain, Signal]:
        whole = Gain()
        for layer in layers:
            gain, signal = self.layer(layer, signal)
            whole = whole.then(gain)
            if not (math.isfinite(signal.square) and math.isfinite(whole.chi)):
                raise _Silent("the signal grows beyond all numbers")
        return whole, signal

    def layer(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        kind = layer.kind
        if kind in ACTIVATIONS:
            return self._activation(layer, signal)
        rule = _RULES.get(kind)
        if rule is None:
            raise _Silent(f"{kind} has no closed form here")
        return rule(self, layer, signal)

    def _repeat(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        return self.chain(layer.branches[0] * layer.times, signal)

    def _residual(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        """Squares and variances of the two ways; their cross term vanishes between networks, and
        within one it is 2 s b δᵀJδ, of relative variance 4 s² b² χ_S χ_F / n."""
        scales = [_float(layer, key, 1.0) for key in ("skip_scale", "branch_scale")]
        skip, branch = Gain(), Gain(0.0, mixes=True)
        kept = signal
        if len(layer.branches) > 1:
            skip, kept = self.chain(layer.branches[1], signal)
        moved = kept._replace(mean=0.0, square=0.0, product=0.0, tangent=_NOTHING)  # F = 0
        if not layer.arguments.get("zero_init"):
            branch, moved = self.chain(layer.branches[0], signal)
        if not (skip.mixes or branch.mixes):
            raise _Silent("neither way through the residual holds random weights")
        s, b = scales
        chi = theory.residual_chi(branch.chi, s, b, skip.chi)
        ways = (s * s * skip.chi, b * b * branch.chi)
        width = max(1, min(kept.width, signal.width))
        spread = ways[0] ** 2 * skip.variance + ways[1] ** 2 * branch.variance
        spread += 4 * ways[0] * ways[1] / width
        cross = 2 * s * b * kept.mean * moved.mean  # units of F are independent of their own x
        out = moved._replace(
            mean=s * kept.mean + b * moved.mean,
            square=s * s * kept.square + b * b * moved.square + cross,
            product=s * s * kept.product + b * b * moved.product + cross,
            tangent=Tangent(
                s * s * kept.tangent.square
                + b * b * moved.tangent.square
                + 2 * s * b * kept.tangent.mean * moved.tangent.mean,
                s * s * kept.tangent.along
                + b * b * moved.tangent.along
                + s * b * (kept.mean * moved.tangent.mean + moved.mean * kept.tangent.mean),
                s * kept.tangent.mean + b * moved.tangent.mean,
            ),
            gaussian=kept.gaussian and moved.gaussian,
        )
        return Gain(chi, spread / chi**2 if chi else 0.0, True), out

    def _linear(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        shape = _shape(layer, signal)
        return self._weights(layer, signal, (shape[-1], signal.shape[-1]), shape, len(shape) - 1)

    def _conv(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        shape = _shape(layer, signal)
        if layer.arguments.get("padding_mode", "zeros") != "zeros":
            raise _Silent(f"{layer.kind}: padding_mode {layer.arguments['padding_mode']}")
        kernel = _each(layer, "kernel_size", len(shape) - 2, 1)
        channels = signal.shape[1] // cast(int, layer.arguments.get("groups", 1))
        size = (shape[1], channels, *kernel)
        return self._weights(layer, signal, size, shape, 1, _inside(layer, signal.shape, shape))

    def _weights(
        self,
        layer: LayerSpec,
        signal: Signal,
        size: tuple[int, ...],
        shape: tuple[int, ...],
        features: int,
        inside: float = 1.0,
    ) -> tuple[Gain, Signal]:
        """h = Wx + b: σ_w² = fan_in · Var(w), of which zero padding leaves ``inside``."""
        fan_in = math.prod(size[1:])
        default = 1 / (3 * fan_in)  # U(±1 / √fan_in), for weights and biases alike
        mean, square = self._parameter(layer, "weight", size, (0.0, default))
        if mean:
            raise _Silent(f"{layer.kind}: its weights do not have mean 0")
        shift, spread = 0.0, 0.0
        if layer.arguments.get("bias", True):
            shift, spread = self._parameter(layer, "bias", size[:1], (0.0, default))
        weight = fan_in * square * inside
        out = Signal(
            shape,
            shift,
            weight * signal.square + spread,
            weight * signal.product + spread,
            gaussian=spread == shift**2 or shift == 0,
            features=features,
            tangent=Tangent(weight * signal.tangent.square, weight * signal.tangent.along, 0.0),
        )
        return Gain(weight, 2 / max(1, signal.width), True), out

    def _activation(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        if layer.kind == "Identity":
            return Gain(), signal
        if not signal.gaussian:
            raise _Silent(f"{layer.kind} acts on a signal that is not Gaussian")
        if self._inits(layer):
            raise _Silent(f"{layer.kind} has an init of its own")
        names = layer_arguments(layer.kind).keys() - {"inplace", "num_parameters"}
        phi = activation(
            layer.kind, {key: layer.arguments[key] for key in layer.arguments if key in names}
        )
        found = theory.moments(phi, signal.variance, signal.mean)
        both = found.square
        if self.correlated and signal.variance > 0:
            correlation = (signal.product - signal.mean**2) / signal.variance
            correlation = max(-1.0, min(1.0, correlation))
            both = theory.product(phi, signal.variance, correlation, signal.mean)
        out = signal._replace(
            mean=found.mean,
            square=found.square,
            product=both,
            gaussian=False,
            tangent=theory.push(phi, signal.variance, signal.mean, signal.tangent),
        )
        return Gain(found.slope, 3 * (found.kurtosis - 1) / signal.width), out

    def _layer_norm(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        features = self._normalised(layer, signal)
        eps = _float(layer, "eps", 1e-5)
        scale = signal.variance + eps
        moved, along = signal.tangent, signal.tangent.along - signal.mean * signal.tangent.mean
        left = eps / scale  # of a change along the signal
        chi = theory.layer_norm_chi(signal.variance, features, eps)
        out = signal._replace(
            mean=0.0,
            square=signal.variance / scale,
            product=(signal.product - signal.mean**2) / scale,
            tangent=Tangent(
                (moved.square - moved.mean**2 - (1 + left) * along**2 / scale) / scale,
                along * left / scale,
                0.0,
            ),
        )
        return self._affine(layer, "elementwise_affine", chi, out)

    def _rms_norm(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        features = self._normalised(layer, signal)
        eps = _float(layer, "eps", 1.1920929e-07)  # of float32
        scale = signal.square + eps
        moved, left = signal.tangent, eps / scale
        chi = theory.rms_norm_chi(signal.square, features, eps)
        out = signal._replace(
            mean=signal.mean / math.sqrt(scale),
            square=signal.square / scale,
            product=signal.product / scale,
            tangent=Tangent(
                (moved.square - (1 + left) * moved.along**2 / scale) / scale,
                moved.along * left / scale,
                (moved.mean - signal.mean * moved.along / scale) / math.sqrt(scale),
            ),
        )
        return self._affine(layer, "elementwise_affine", chi, out)

    def _normalised(self, layer: LayerSpec, signal: Signal) -> int:
        """How many numbers each sample's moments are taken over; they must span the features."""
        given = layer.arguments.get("normalized_shape", signal.shape[-1])
        sizes = given if isinstance(given, tuple) else (given,)
        if signal.features is not None and signal.features < len(signal.shape) - len(sizes):
            raise _Silent(f"{layer.kind} does not normalise over the channels")
        return math.prod(cast(tuple[int, ...], sizes))

    def _batch_norm(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        """Moments across the batch (and the positions) of each channel, axis 1."""
        values = signal.shape[0] * math.prod(signal.shape[2:])
        if signal.features not in (None, 1):
            raise _Silent(f"{layer.kind} does not normalise each feature by itself")
        if values < _SMALLEST_BATCH:
            raise _Silent(f"{layer.kind} over a batch of {values}")
        variance = signal.square - signal.product
        if signal.product - signal.mean**2 > _SPREAD * signal.square and not signal.gaussian:
            raise _Silent(f"{layer.kind} of features whose variance differs")
        if len(signal.shape) > 2 and signal.product > _ALIKE * signal.square:
            raise _Silent(f"{layer.kind} of images that look alike")
        eps = _float(layer, "eps", 1e-5)
        chi = theory.batch_norm_chi(variance, values, eps)
        square = variance / (variance + eps)
        own = signal.tangent  # one input's, with the batch as it is
        share = variance / (signal.square or 1.0)
        out = signal._replace(
            mean=0.0,
            square=square,
            product=-square / (values - 1),
            tangent=Tangent(
                own.square / (variance + eps), own.along * share / (variance + eps), 0.0
            ),
        )
        return self._affine(layer, "affine", chi, out, (3 / values) ** 2)

    def _affine(
        self, layer: LayerSpec, switch: str, chi: float, signal: Signal, spread: float = 0.0
    ) -> tuple[Gain, Signal]:
        """y = w ŷ + b, with w = 1 and b = 0 unless an init says otherwise.

        ``spread`` is the relative variance of chi beside that of s² over the width.
        """
        spread += 2 / signal.width
        if not layer.arguments.get(switch, True):
            return Gain(chi, spread), signal
        size = (signal.width,)
        mean, square = self._parameter(layer, "weight", size, (1.0, 1.0))
        shift, shift_square = 0.0, 0.0
        if layer.kind != "RMSNorm" and layer.arguments.get("bias", True):
            shift, shift_square = self._parameter(layer, "bias", size, (0.0, 0.0))
        added = shift_square + 2 * mean * shift * signal.mean
        out = signal._replace(
            mean=mean * signal.mean + shift,
            square=square * signal.square + added,
            product=square * signal.product + added,
            gaussian=signal.gaussian and square == mean**2 and shift_square == shift**2,
            tangent=Tangent(
                square * signal.tangent.square,
                square * signal.tangent.along + mean * shift * signal.tangent.mean,
                mean * signal.tangent.mean,
            ),
        )
        return Gain(chi * square, spread), out

    def _dropout(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        """What stays is divided by 1 - p, and so is what comes back: squares by (1 - p)."""
        kept = 1 - _float(layer, "p", 0.5)
        if kept == 1:
            return Gain(), signal
        if kept <= 0:
            raise _Silent(f"{layer.kind} drops everything")
        gain = Gain(1 / kept, (1 / kept - 1) / signal.width)
        return gain, signal._replace(
            square=signal.square / kept,
            gaussian=False,
            tangent=signal.tangent._replace(
                square=signal.tangent.square / kept, along=signal.tangent.along / kept
            ),
        )

    def _flatten(self, layer: LayerSpec, signal: Signal) -> tuple[Gain, Signal]:
        return Gain(), signal._replace(shape=_shape(layer, signal), features=1)

    def _inits(self, layer: LayerSpec) -> Mapping[str, InitSpec]:
        return {**self.spec.init.get(layer.kind, {}), **layer.init}

    def _parameter(
        self, layer: LayerSpec, name: str, size: tuple[int, ...], default: tuple[float, float]
    ) -> tuple[float, float]:
        """Mean and mean square of a parameter's entries."""
        init = self._inits(layer).get(name)
        if init is None:
            return default
        found = init_moments(init, size)
        if found is None:
            raise _Silent(f"{layer.kind}: init {init.name} is not random")
        return found


_Rule = Callable[[_Walker, LayerSpec, Signal], tuple[Gain, Signal]]

_RULES: dict[str, _Rule] = {
    "Linear": _Walker._linear,
    **{f"Conv{n}d": _Walker._conv for n in (1, 2, 3)},
    "LayerNorm": _Walker._layer_norm,
    "RMSNorm": _Walker._rms_norm,
    **{f"BatchNorm{n}d": _Walker._batch_norm for n in (1, 2, 3)},
    **dict.fromkeys(("Dropout", "Dropout1d", "Dropout2d", "Dropout3d"), _Walker._dropout),
    "Flatten": _Walker._flatten,
    "repeat": _Walker._repeat,
    "sequential": _Walker._repeat,
    "residual": _Walker._residual,
}
_DECISIVE = ACTIVATIONS.keys() - {"Identity"} | (kinds(Trait.NORM) & _RULES.keys())


def _shape(layer: LayerSpec, signal: Signal) -> tuple[int, ...]:
    shape = output_shape(layer.kind, layer.arguments, signal.shape)
    if shape is None:
        raise _Silent(f"the shape of {layer.kind}'s output is not known here")
    return shape


def _inside(layer: LayerSpec, shape: tuple[int, ...], out: tuple[int, ...]) -> float:
    """The share of a convolution's taps that meet the input and not its zero padding."""
    dimensions = len(shape) - 2
    share = 1.0
    for n, m, kernel, stride, padding, dilation in zip(
        shape[2:],
        out[2:],
        _each(layer, "kernel_size", dimensions, 1),
        _each(layer, "stride", dimensions, 1),
        _each(layer, "padding", dimensions, 0),
        _each(layer, "dilation", dimensions, 1),
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


def _each(layer: LayerSpec, key: str, dimensions: int, default: int) -> tuple[int, ...]:
    value = layer.arguments.get(key, default)
    return cast(tuple[int, ...], value if isinstance(value, tuple) else (value,) * dimensions)


def _float(layer: LayerSpec, key: str, default: float) -> float:
    value = layer.arguments.get(key)
    return default if value is None else float(cast(float, value))


def about(spec: NetworkSpec) -> str:
    """``ReLU, BatchNorm1d, torch's default init``: what decides over the factors."""
    layers = [layer for layer, _ in walk(spec.layers)]
    kinds = [k for k in dict.fromkeys(layer.kind for layer in layers) if k in _DECISIVE]
    weighted = [layer for layer in layers if layer.kind in _WEIGHTED]
    inits = {_init_words(spec, layer) for layer in weighted}
    return ", ".join([*kinds, *(inits if len(inits) == 1 else ["several inits"])])


def _init_words(spec: NetworkSpec, layer: LayerSpec) -> str:
    init = {**spec.init.get(layer.kind, {}), **layer.init}.get("weight")
    if init is None:
        return "torch's default init"
    return " ".join([init.name, *(f"{key} {value}" for key, value in init.arguments.items())])


# ---- the same network with other weights


def with_init(spec: NetworkSpec, weight: InitSpec) -> NetworkSpec:
    """``spec`` with all Linear and convolution weights drawn by ``weight``, and zero biases."""

    def changed(layer: LayerSpec) -> LayerSpec:
        branches = tuple(tuple(map(changed, branch)) for branch in layer.branches)
        init = {} if layer.kind in _WEIGHTED else layer.init
        return replace(layer, branches=branches, init=init)

    new = {"weight": weight, "bias": InitSpec("zeros")}
    init = {**spec.init, **dict.fromkeys(_WEIGHTED, new)}
    return replace(spec, layers=tuple(map(changed, spec.layers)), init=init)
