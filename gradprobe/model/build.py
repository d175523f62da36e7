"""``NetworkSpec`` → ``torch.nn.Module``.

First everything is planned on the meta device, where tensors have a shape and no memory: sizes
that follow from the input are filled in, shapes that do not fit are found, and the cost is summed
up and held against the limits. Only then is memory allocated. Each layer draws from a seed derived
from (seed, path), never from a stream that another layer shares.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, cast

import torch
from torch import Tensor, nn

from gradprobe.errors import GradprobeError, Place, first_line, out_of_memory
from gradprobe.model.rows import Row
from gradprobe.model.seeds import derive
from gradprobe.spec.network import InitSpec, LayerSpec, NetworkSpec, walk
from gradprobe.spec.options import Limits
from gradprobe.spec.shapes import output_shape
from gradprobe.spec.vocabulary import RECURRENT_LAYERS, SEQUENCE_LAYERS, layer_arguments

_BUILDING = threading.Lock()  # torch's default initialisations draw from the global generator


# ---- the layers that torch has not, or has with another signature


def _overwrites(module: nn.Module) -> bool:
    """Whether a layer inside may write its output over its input."""
    return any(getattr(layer, "inplace", False) for layer in module.modules())


class Residual(nn.Module):
    """y = skip_scale · shortcut(x) + branch_scale · F(x); the layers of F are children 0, 1, …"""

    def __init__(
        self,
        branch: Mapping[str, nn.Module],
        shortcut: nn.Module | None,
        skip_scale: float,
        branch_scale: float,
    ) -> None:
        super().__init__()
        for name, layer in branch.items():
            self.add_module(name, layer)
        self.shortcut = shortcut
        self.branch = tuple(branch.values())
        self.skip_scale = skip_scale
        self.branch_scale = branch_scale
        self.overwrites = _overwrites(self)

    def skip_of(self, x: Tensor) -> Tensor:
        """What travels along the skip."""
        if self.shortcut is None:
            skip = x
        else:
            skip = self.shortcut(x.clone() if self.overwrites else x)
        return skip if self.skip_scale == 1 else skip * self.skip_scale

    def branch_of(self, x: Tensor) -> Tensor:
        """What travels through the branch, which must not overwrite what the skip carries."""
        x = x.clone() if self.overwrites else x
        for layer in self.branch:
            x = layer(x)
        return x if self.branch_scale == 1 else x * self.branch_scale

    def forward(self, x: Tensor) -> Tensor:
        return self.skip_of(x) + self.branch_of(x)


class Concat(nn.Module):
    """The outputs of several branches of one input, joined along ``dim``."""

    def __init__(self, branches: list[nn.Module], dim: int) -> None:
        super().__init__()
        for index, branch in enumerate(branches):
            self.add_module(str(index), branch)
        self.dim = dim
        self.overwrites = _overwrites(self)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x.clone() if self.overwrites else x) for branch in self.children()]
        return torch.cat(outputs, dim=self.dim)


class MultiheadAttention(nn.MultiheadAttention):
    """``MultiheadAttention`` of a sequence with itself; ``causal`` hides the positions to come."""

    def __init__(self, *, causal: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments, batch_first=True)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        mask = _causal_mask(x) if self.causal else None
        return super().forward(x, x, x, need_weights=False, attn_mask=mask, is_causal=self.causal)[
            0
        ]


class TransformerEncoderLayer(nn.TransformerEncoderLayer):
    """``TransformerEncoderLayer``; ``causal`` hides the positions to come."""

    def __init__(self, *, causal: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments, batch_first=True)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        mask = _causal_mask(x) if self.causal else None
        return super().forward(x, src_mask=mask, is_causal=self.causal)


class RNN(nn.RNN):
    """``RNN`` that hands on its sequence output."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]


class LSTM(nn.LSTM):
    """``LSTM`` that hands on its sequence output."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]


class GRU(nn.GRU):
    """``GRU`` that hands on its sequence output."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]


LAYER_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "MultiheadAttention": MultiheadAttention,
    "TransformerEncoderLayer": TransformerEncoderLayer,
    "RNN": lambda **arguments: RNN(batch_first=True, **arguments),
    "LSTM": lambda **arguments: LSTM(batch_first=True, **arguments),
    "GRU": lambda **arguments: GRU(batch_first=True, **arguments),
}

# Parameter-free layers that do not map 0 to 0: a branch that ends in one cannot start as zero.
NONZERO_AT_ZERO = frozenset(
    "AlphaDropout FeatureAlphaDropout "
    "Sigmoid LogSigmoid Softplus Hardsigmoid Softmax Softmin LogSoftmax Softmax2d Threshold "
    "ConstantPad1d ConstantPad2d ConstantPad3d".split()
)

# How an argument that was left out follows from the input (batch, …).
INFERENCES: dict[str, Callable[[Tensor], int | None]] = {
    "in_features": lambda x: x.shape[-1],
    "input_size": lambda x: x.shape[-1],
    "embed_dim": lambda x: x.shape[-1],
    "d_model": lambda x: x.shape[-1],
    "normalized_shape": lambda x: x.shape[-1],
    "in_channels": lambda x: x.shape[1] if x.dim() > 1 else None,
    "num_features": lambda x: x.shape[1] if x.dim() > 1 else None,
    "num_channels": lambda x: x.shape[1] if x.dim() > 1 else None,
}


class Network(nn.Sequential):
    """The module of a ``NetworkSpec``: a chain of layers, where a ``repeat`` is a chain itself.

    ``rows`` are its rows of level 0, in the order in which they run; ``places`` says where in its
    file each leaf stands; ``work`` is about how many multiplications one forward pass takes.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        layers: Mapping[str, nn.Module],
        rows: list[Row],
        places: dict[nn.Module, Place],
        work: int,
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.spec = spec
        self.rows = rows
        self.places = places
        self.work = work


# ---- the plan


class Planned(NamedTuple):
    """A layer whose sizes are all known. A ``repeat`` has one branch for each iteration."""

    spec: LayerSpec
    arguments: dict[str, Any]
    branches: tuple[tuple[Planned, ...], ...] = ()
    parameters: int = 0
    activations: int = 0  # elements of all outputs inside, for the whole batch
    work: int = 0  # multiplications of one forward pass, about


@dataclass(frozen=True, slots=True)
class Plan:
    """A network whose sizes are all known, and what it costs; nothing is allocated yet."""

    layers: tuple[Planned, ...]
    parameters: int
    work: int  # multiplications of one forward pass, about


def plan(spec: NetworkSpec, batch_size: int, limits: Limits | None = None) -> Plan:
    """Fill in every size, on the meta device, and hold the cost against ``limits``.

    Raises:
        InputError: shapes do not fit, an argument is refused by torch, no parameter, too large.
    """
    planner = _Planner(spec)
    shape = (batch_size, *spec.input.shape)
    limits = limits or Limits()
    _check_bytes(spec, "one input batch needs", math.prod(shape), limits, spec.input.place)
    dtype = torch.float32 if spec.input.tokens is None else torch.int64
    with torch.no_grad():
        x = torch.empty(shape, device="meta", dtype=dtype)
        layers, _ = planner.chain(spec.layers, x)
    parameters = sum(layer.parameters for layer in layers)
    activations = sum(layer.activations for layer in layers)
    if parameters == 0:
        raise spec.error("the network has no trainable parameters", spec.layers[0].place)
    largest = max(layers, key=lambda layer: layer.parameters).spec.place
    _check_bytes(spec, f"{parameters:,} parameters need", parameters, limits, largest)
    if parameters > limits.parameters:
        message = f"the network has {parameters:,} parameters"
        raise spec.error(message, largest, f"--max-parameters is {limits.parameters:,}")
    # Each output, and its gradient on the way back.
    what = f"the activations of a batch of {batch_size} need"
    widest = max(layers, key=lambda layer: layer.activations).spec.place
    _check_bytes(spec, what, 2 * activations + parameters, limits, widest)
    work = sum(layer.work for layer in layers)
    return Plan(tuple(layers), parameters, work)


def _check_bytes(
    spec: NetworkSpec, what: str, elements: int, limits: Limits, place: Place | None
) -> None:
    needed = elements * 4
    if needed > limits.memory:
        message = f"{what} {format_bytes(needed)}"
        raise spec.error(message, place, f"--max-memory is {format_bytes(limits.memory)}")


def format_bytes(count: int) -> str:
    """``3.6 TiB``"""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.2g} TiB" if size < 100 else f"{size:,.0f} TiB"


_SPATIAL = re.compile(r"(?:Conv|ConvTranspose|\w+Pool)([123])d")

_IMAGES = {
    "1": "[channels, length]",
    "2": "[channels, height, width]",
    "3": "[channels, depth, height, width]",
}


class _Planner:
    """Walks the spec once with a meta tensor; equal layers on equal inputs are planned once."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.known: dict[tuple[Any, ...], tuple[Planned, Tensor]] = {}
        self.previous: LayerSpec | None = None

    def chain(self, layers: tuple[LayerSpec, ...], x: Tensor) -> tuple[list[Planned], Tensor]:
        planned = []
        for layer in layers:
            one, x = self.layer(layer, x)
            planned.append(one)
        return planned, x

    def layer(self, layer: LayerSpec, x: Tensor) -> tuple[Planned, Tensor]:
        if layer.is_leaf:
            key = (id(layer), tuple(x.shape), x.dtype)
            if key not in self.known:
                self.known[key] = self._leaf(layer, x)
            planned, out = self.known[key]
            self.previous = layer
            return planned, out
        return getattr(self, f"_{layer.kind}")(layer, x)  # type: ignore[no-any-return]

    def _leaf(self, layer: LayerSpec, x: Tensor) -> tuple[Planned, Tensor]:
        if not x.is_floating_point() and "Embedding" not in layer.kind:
            message = f"{layer.kind} takes floating point input, not tokens"
            hint = "begin with Embedding: {embedding_dim: 64}"
            raise self.spec.error(message, layer.place, hint)
        if layer.kind in SEQUENCE_LAYERS and x.dim() != 3:
            message = f"{layer.kind} takes a sequence, [positions, features], and gets {_shape(x)}"
            raise self.spec.error(message, layer.place)
        spatial = _SPATIAL.fullmatch(layer.kind)
        if spatial and x.dim() != int(spatial[1]) + 2:  # torch would take the batch for channels
            message = f"{layer.kind} takes {_IMAGES[spatial[1]]} and gets {_shape(x)}"
            message += f" from {self._source()}"
            raise self.spec.error(message, layer.place)
        arguments = self._resolve(layer, x)
        if _mixes_samples(layer.kind, arguments, x.dim()):
            message = f"{layer.kind} acts across the samples of the batch, dimension 0"
            raise self.spec.error(message, layer.place, "give it a dim of 1 or more")
        try:
            with torch.device("meta"):
                module = layer_class(layer.kind)(**arguments)
            out = self._output(layer, arguments, module, x)
        except Exception as error:
            self._refuse(layer, x, error)
        if not isinstance(out, Tensor):
            raise self.spec.error(f"{layer.kind} does not return one tensor", layer.place)
        if out.numel() == 0:
            shape = list(out.shape[1:])
            raise self.spec.error(f"{layer.kind} gives an empty output, {shape}", layer.place)
        parameters = sum(p.numel() for p in module.parameters())
        # Each weight of an output feature is used once for each of that feature's values.
        work = out.numel() * parameters // (arguments.get("out_channels") or out.shape[-1])
        activations = out.numel() + _inside(layer.kind, arguments, x)
        return Planned(layer, arguments, (), parameters, activations, work), out

    @staticmethod
    def _output(layer: LayerSpec, arguments: dict[str, Any], module: nn.Module, x: Tensor) -> Any:
        fits = x.is_floating_point() != ("Embedding" in layer.kind)
        shape = output_shape(layer.kind, arguments, tuple(x.shape)) if fits else None
        return (
            module(x) if shape is None else torch.empty(shape, device="meta", dtype=torch.float32)
        )

    def _resolve(self, layer: LayerSpec, x: Tensor) -> dict[str, Any]:
        """The arguments of a leaf, with those that follow from the input filled in."""
        arguments: dict[str, Any] = {
            key: list(value)
            if key in ("normalized_shape", "unflattened_size") and isinstance(value, tuple)
            else value
            for key, value in layer.arguments.items()
            if key != "batch_first"
        }
        for argument in layer_arguments(layer.kind).values():
            if argument.inferred:
                name = argument.name
                inferred = self._inferred(layer, name, x)
                given = arguments.setdefault(name, inferred)
                last = given[-1] if isinstance(given, list) else given
                # A vocabulary may be larger than the tokens that this input draws from.
                if last < inferred if name == "num_embeddings" else last != inferred:
                    message = (
                        f"{layer.kind}: {name} is {last}, but {self._source()} gives {inferred}"
                    )
                    hint = f"leave '{name}' out: it follows from the input"
                    raise self.spec.error(message, layer.place, hint)
        return arguments

    def _inferred(self, layer: LayerSpec, name: str, x: Tensor) -> int:
        if name == "num_embeddings":
            if self.spec.input.tokens is None:
                hint = "say how many there are: input: {shape: [128], tokens: 50257}"
                message = f"{layer.kind} needs integer tokens for input"
                raise self.spec.error(message, layer.place, hint)
            return self.spec.input.tokens
        inferred = INFERENCES[name](x)
        if inferred is None:
            message = f"{layer.kind}: '{name}' does not follow from {_shape(x)}"
            raise self.spec.error(message, layer.place)
        return inferred

    def _source(self) -> str:
        if self.previous is None:
            return "the input"
        line = f" (line {self.previous.place.line})" if self.previous.place else ""
        return f"{self.previous.kind}{line}"

    def _refuse(self, layer: LayerSpec, x: Tensor, error: Exception) -> NoReturn:
        if isinstance(error, GradprobeError):
            raise error
        # A set has another order in each process.
        reason = re.sub(
            r"\{('[^{}]*')\}", lambda m: ", ".join(sorted(m[1].split(", "))), first_line(error)
        )
        if "overflow" in reason.lower():
            message = f"{layer.kind} needs more than 8 EiB"
            raise self.spec.error(message, layer.place, "see --max-memory") from error
        if "more than 1 value per channel" in reason:
            message = (
                f"{layer.kind} needs more than one value per channel; the batch has one sample"
            )
            raise self.spec.error(message, layer.place, "use --batch-size 2 or more") from error
        message = f"{layer.kind} cannot take the output of {self._source()}, {_shape(x)}: "
        raise self.spec.error(message + reason[:200], layer.place) from error

    def _sequential(self, layer: LayerSpec, x: Tensor) -> tuple[Planned, Tensor]:
        inside, out = self.chain(layer.branches[0], x)
        return _combine(layer, (tuple(inside),)), out

    def _repeat(self, layer: LayerSpec, x: Tensor) -> tuple[Planned, Tensor]:
        iterations: list[tuple[Planned, ...]] = []
        while len(iterations) < layer.times:
            inside, out = self.chain(layer.branches[0], x)
            same = out.shape == x.shape and out.dtype == x.dtype
            # A body that preserves the shape plans the same way each time.
            iterations += [tuple(inside)] * (layer.times - len(iterations) if same else 1)
            x = out
        return _combine(layer, tuple(iterations)), x

    def _residual(self, layer: LayerSpec, x: Tensor) -> tuple[Planned, Tensor]:
        before = self.previous
        inside, out = self.chain(layer.branches[0], x)
        last = self.previous
        branches = [tuple(inside)]
        skip = x
        if len(layer.branches) > 1:
            self.previous = before
            shortcut, skip = self.chain(layer.branches[1], x)
            branches.append(tuple(shortcut))
        if skip.shape != out.shape:
            ends = f"{_kind(last)} ends in {_shape(out)}, the skip in {_shape(skip)}"
            hint = "make them equal, or give the residual a 'shortcut' that changes the shape"
            raise self.spec.error(f"residual: the branch's {ends}", layer.place, hint)
        self.previous = layer
        return _combine(layer, tuple(branches)), out

    def _concat(self, layer: LayerSpec, x: Tensor) -> tuple[Planned, Tensor]:
        before = self.previous
        branches, outputs = [], []
        for branch in layer.branches:
            self.previous = before
            inside, out = self.chain(branch, x)
            branches.append(tuple(inside))
            outputs.append(out)
        dim = cast(int, layer.arguments.get("dim", 1))
        first = list(outputs[0].shape)
        across = dim + len(first) if dim < 0 else dim
        rests = {(*out.shape[:across], *out.shape[across + 1 :]) for out in outputs}
        if not 0 < across < len(first) or len(rests) > 1:
            shapes = ", ".join(str(list(out.shape[1:])) for out in outputs)
            message = f"concat: outputs of shapes {shapes} cannot be joined along dim {dim}"
            raise self.spec.error(message, layer.place)
        first[across] = sum(out.shape[across] for out in outputs)
        joined = torch.empty(first, device="meta", dtype=outputs[0].dtype)
        self.previous = layer
        return _combine(layer, tuple(branches)), joined


# Of three dimensions these take the first where they are told none.
_TAKES_FIRST = frozenset({"Softmax", "Softmin", "LogSoftmax", "Softmax2d"})


def _mixes_samples(kind: str, arguments: Mapping[str, Any], dimensions: int) -> bool:
    """Whether a layer that acts along one dimension does so along that of the batch."""
    if "dim" in arguments:
        return kind in {"GLU", *_TAKES_FIRST} and arguments["dim"] in (0, -dimensions)
    return kind in _TAKES_FIRST and dimensions == 3


def _inside(kind: str, arguments: Mapping[str, Any], x: Tensor) -> int:
    """Elements that a layer keeps beside its output: gates, projections, a mask, padding."""
    if kind == "LocalResponseNorm":  # pads the channels by its size
        return x.numel() // x.shape[1] * (x.shape[1] + int(arguments["size"]))
    if kind not in SEQUENCE_LAYERS:
        return 0
    batch, length, features = x.shape
    if kind in RECURRENT_LAYERS:
        gates = {"RNN": 4, "GRU": 10, "LSTM": 11}[kind]  # as measured, with the layer's output
        gates *= arguments.get("num_layers", 1) * (2 if arguments.get("bidirectional") else 1)
        return int(batch * length * arguments["hidden_size"] * gates)
    mask = length * length if arguments.get("causal") else 0
    forward = arguments.get("dim_feedforward", 2048) if kind == "TransformerEncoderLayer" else 0
    return int(mask + batch * length * (4 * features + 2 * forward))


def _combine(layer: LayerSpec, branches: tuple[tuple[Planned, ...], ...]) -> Planned:
    inside = [planned for branch in branches for planned in branch]
    parameters = sum(planned.parameters for planned in inside)
    activations = sum(planned.activations for planned in inside)
    work = sum(planned.work for planned in inside)
    return Planned(layer, dict(layer.arguments), branches, parameters, activations, work)


def _shape(x: Tensor) -> str:
    return f"shape {list(x.shape[1:])}"


def _kind(layer: LayerSpec | None) -> str:
    return layer.kind if layer else "input"


def layer_class(kind: str) -> Callable[..., nn.Module]:
    """The class that a layer's name stands for."""
    return LAYER_CLASSES.get(kind) or getattr(nn, kind)


# ---- from the plan to modules


def build(
    spec: NetworkSpec,
    *,
    seed: int = 0,
    batch_size: int = 2,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    limits: Limits | None = None,
) -> Network:
    """The network of ``spec``. The same seed gives the same weights, in every dtype.

    Args:
        spec: what to build.
        seed: with the path of each layer it fixes that layer's weights; the global random state
            is neither used nor changed.
        batch_size: of the batch that shapes and memory are checked with.

    Raises:
        InputError: see ``plan``; or an initialisation that torch refuses.
    """
    planned = plan(spec, batch_size, limits)
    builder = _Builder(spec, seed)
    with _own_generator():
        layers = builder.children(planned.layers, "")
    builder.check_inits()
    rows = builder.rows(planned.layers, layers)
    network = Network(spec, layers, rows, builder.places, planned.work)
    network.to(dtype=dtype, device=device)
    return network


@contextmanager
def _own_generator() -> Iterator[None]:
    """Lend the global CPU generator to the builder, in float32, and hand it back as it was."""
    with _BUILDING:
        state, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.random.set_rng_state(state)
            torch.set_default_dtype(dtype)


# Names that a module's children cannot have.
_TAKEN = frozenset(dir(nn.Sequential())) | {
    *("shortcut", "branch", "skip_scale", "branch_scale", "overwrites"),  # of Residual
    *("spec", "rows", "places", "lines", "work"),  # of Network
}


class _Builder:
    def __init__(self, spec: NetworkSpec, seed: int) -> None:
        self.spec = spec
        self.seed = seed
        self.places: dict[nn.Module, Place] = {}
        self.used_inits: set[int] = set()  # ids of those that matched a parameter

    def check_inits(self) -> None:
        """Refuse a top-level initialisation that matched no parameter: it is misspelt."""
        for kind, inits in self.spec.init.items():
            for key, init in inits.items():
                if id(init) not in self.used_inits:
                    message = f"init: no {kind} of the network has a parameter '{key}'"
                    raise self.spec.error(message, init.place)

    def children(self, layers: tuple[Planned, ...], path: str) -> dict[str, nn.Module]:
        for layer in layers:
            if layer.spec.name in _TAKEN:
                message = f"the name '{layer.spec.name}' is taken by torch or gradprobe"
                raise self.spec.error(message, layer.spec.place, "choose another name")
        names = [layer.spec.name or str(index) for index, layer in enumerate(layers)]
        return {
            name: self.module(layer, f"{path}.{name}" if path else name)
            for name, layer in zip(names, layers, strict=True)
        }

    def chain(self, layers: tuple[Planned, ...], path: str) -> nn.Module:
        """One layer stands for itself, so that a repeat's body of one layer adds no level."""
        if len(layers) == 1 and layers[0].spec.name is None:
            return self.module(layers[0], path)
        return _sequential(self.children(layers, path))

    def module(self, layer: Planned, path: str) -> nn.Module:
        kind = layer.spec.kind
        if layer.spec.is_leaf:
            return self.leaf(layer, path)
        if kind == "repeat":
            blocks = {str(i): self.chain(b, f"{path}.{i}") for i, b in enumerate(layer.branches)}
            return _sequential(blocks)
        if kind == "concat":
            chains = [self.chain(b, f"{path}.{i}") for i, b in enumerate(layer.branches)]
            return Concat(chains, layer.arguments.get("dim", 1))
        if kind == "residual":
            return self.residual(layer, path)
        return _sequential(self.children(layer.branches[0], path))

    def leaf(self, layer: Planned, path: str) -> nn.Module:
        torch.default_generator.manual_seed(derive(self.seed, path))
        module = layer_class(layer.spec.kind)(**layer.arguments)
        if layer.spec.place:
            self.places[module] = layer.spec.place
        inits = {**self.spec.init.get(layer.spec.kind, {}), **layer.spec.init}
        used = set()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                for key in sorted(inits, key=len, reverse=True):
                    if _names(key, name):
                        used.add(key)
                        self.used_inits.add(id(inits[key]))
                        self.initialise(parameter, inits[key], f"{path}.{name}")
                        break
        for key in layer.spec.init:
            if key not in used:
                known = ", ".join(name for name, _ in module.named_parameters()) or "none"
                message = f"init: {layer.spec.kind} has no parameter '{key}'"
                place = layer.spec.init[key].place
                raise self.spec.error(message, place, f"its parameters: {known}")
        return module

    def initialise(self, parameter: Tensor, init: InitSpec, path: str) -> None:
        torch.default_generator.manual_seed(derive(self.seed, path))
        try:
            if init.name == "variance_scaling":
                variance_scaling(parameter, **cast(dict[str, Any], init.arguments))
            else:
                getattr(nn.init, f"{init.name}_")(parameter, **init.arguments)
        except Exception as error:
            if out_of_memory(error):  # which is no fault of the spec's
                raise
            filled = f"{path}, {list(parameter.shape)}"
            message = f"init {init.name} cannot fill {filled}: {first_line(error)}"
            raise self.spec.error(message, init.place) from error

    def residual(self, layer: Planned, path: str) -> nn.Module:
        branch = self.children(layer.branches[0], path)
        shortcut = None
        if len(layer.branches) > 1:
            shortcut = self.chain(layer.branches[1], f"{path}.shortcut")
        scales = [float(layer.arguments.get(key, 1)) for key in ("skip_scale", "branch_scale")]
        if layer.arguments.get("zero_init"):
            self.zero(list(branch.values()), layer)
        return Residual(branch, shortcut, scales[0], scales[1])

    def zero(self, branch: list[nn.Module], layer: Planned) -> None:
        """Set the last layer with parameters to zero, so that the branch starts as F(x) = 0."""
        leaves = [leaf for module in branch for leaf in _leaves(module)]
        holders = [
            index
            for index, leaf in enumerate(leaves)
            # A PReLU of slope 0 is a ReLU, and lets half of its input through.
            if any(True for _ in leaf.parameters()) and not isinstance(leaf, nn.PReLU)
        ]
        if not holders:
            message = "zero_init: the branch has no parameters"
            raise self.spec.error(message, layer.spec.place)
        last = leaves[holders[-1]]
        with torch.no_grad():
            for name, parameter in last.named_parameters():
                # Of an attention only what comes last: the values behind it stay as they are.
                if not isinstance(last, nn.MultiheadAttention) or name.startswith("out_proj"):
                    parameter.zero_()
        for leaf in leaves[holders[-1] + 1 :]:
            kind = type(leaf).__name__
            if kind in NONZERO_AT_ZERO:
                message = f"zero_init: the branch ends in {kind}, and {kind}(0) is not 0"
                raise self.spec.error(message, layer.spec.place, "end it in a layer with weights")

    def rows(self, layers: tuple[Planned, ...], modules: Mapping[str, nn.Module]) -> list[Row]:
        rows: list[Row] = []
        for (name, module), layer in zip(modules.items(), layers, strict=True):
            if layer.spec.kind != "repeat":
                rows.append(_row(name, module, (layer,)))
                continue
            blocks = module.named_children()
            for (index, block), inside in zip(blocks, layer.branches, strict=True):
                rows.append(_row(f"{name}.{index}", block, inside))
        return rows


def _sequential(children: Mapping[str, nn.Module]) -> nn.Sequential:
    chain = nn.Sequential()
    for name, child in children.items():
        chain.add_module(name, child)
    return chain


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a spec inside ``module``, in the order of their registration."""
    if type(module) in (nn.Sequential, Residual, Concat):
        for child in module.children():
            yield from _leaves(child)
    else:
        yield module


def _row(name: str, module: nn.Module, layers: tuple[Planned, ...]) -> Row:
    inner = layers
    if len(layers) == 1 and layers[0].spec.kind == "sequential":  # described by what it holds
        inner = layers[0].branches[0]
    kinds = [layer.spec.kind for layer in inner]
    if len(kinds) > 1 and len(set(kinds)) == 1:
        kind = f"{len(kinds)} × {kinds[0]}"
    else:
        kind = "+".join(kinds) if len(kinds) <= 3 else f"block of {len(kinds)}"
    inside = {layer.kind for layer, _ in walk(tuple(planned.spec for planned in layers))}
    return Row(name, kind, module, layers[0].spec.place, 0, tuple(sorted(inside)))


def variance_scaling(
    tensor: Tensor, scale: float = 1.0, mode: str = "fan_in", distribution: str = "normal"
) -> Tensor:
    """Fill ``tensor`` with zero-mean values of variance scale / fan, as Keras and JAX name it.

    ``mode`` is fan_in, fan_out or fan_avg; ``distribution`` is normal (not truncated) or uniform.
    """
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(tensor)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode not in fans:
        raise ValueError(f"mode is '{mode}', not one of {', '.join(fans)}")
    if scale < 0:
        raise ValueError("scale must not be negative")
    std = math.sqrt(scale / max(1.0, fans[mode]))
    if distribution in ("normal", "untruncated_normal"):
        return nn.init.normal_(tensor, 0.0, std)
    if distribution == "uniform":
        return nn.init.uniform_(tensor, -math.sqrt(3) * std, math.sqrt(3) * std)
    raise ValueError(f"distribution is '{distribution}', not normal or uniform")


def _names(key: str, parameter: str) -> bool:
    """Whether ``key`` of an ``init`` means ``parameter``: its name, or a word or words of it.

    ``weight`` means ``in_proj_weight`` and ``weight_hh_l0`` too, ``weight_hh`` only the latter.
    """
    padded = "_" + parameter.replace(".", "_") + "_"
    return f"_{key.replace('.', '_')}_" in padded


def _causal_mask(x: Tensor) -> Tensor:
    length = x.shape[1]
    return torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
