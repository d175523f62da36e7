"""``NetworkSpec`` → ``Planned``: every size filled in, and what the network costs.

Everything happens on the meta device, where tensors have a shape and no memory: sizes that follow
from the input are filled in, shapes that do not fit are found, and the cost is summed up and held
against the limits. Only then does ``build`` allocate memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn, cast

import torch
from torch import Tensor

from gradprobe.errors import GradprobeError, first_line
from gradprobe.model.apart import apart_in_fact, keeps_samples_apart
from gradprobe.model.fits import check_blocks, check_bytes, check_whole, fits
from gradprobe.model.layers import layer_class
from gradprobe.spec.layers import Trait, kinds
from gradprobe.spec.network import LayerSpec, NetworkSpec
from gradprobe.spec.options import Limits
from gradprobe.spec.shapes import output_shape
from gradprobe.spec.vocabulary import layer_arguments

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


class Planned(NamedTuple):
    """A layer whose sizes are all known. A ``repeat`` has one branch for each iteration."""

    spec: LayerSpec
    arguments: dict[str, Any]
    branches: tuple[tuple[Planned, ...], ...] = ()
    parameters: int = 0
    activations: int = 0  # elements of all outputs inside, for the whole batch
    work: int = 0  # multiplications of one forward pass, about
    size: int = 0  # elements of the output

    @property
    def layers(self) -> tuple[Planned, ...]:
        """The layers of the first branch: of a chain all of them."""
        return self.branches[0]

    @property
    def rows(self) -> list[tuple[Planned, ...]]:
        """The layers of each row: of each iteration of a ``repeat``, and each other layer."""
        return [row for layer in self.layers for row in layer.iterations or [(layer,)]]

    @property
    def iterations(self) -> tuple[tuple[Planned, ...], ...]:
        """Those of a ``repeat``; of another layer none."""
        return self.branches if self.spec.kind == "repeat" else ()


def plan(
    spec: NetworkSpec, batch_size: int, limits: Limits | None = None, streams: bool | None = False
) -> Planned:
    """The network as one chain, every size filled in on the meta device, within ``limits``.

    Args:
        streams: whether it is made one block at a time; ``None``: where it does not fit as a whole.

    Raises:
        InputError: shapes do not fit, an argument is refused by torch, no parameter, too large.
    """
    planner = _Planner(spec)
    shape = (batch_size, *spec.input.shape)
    limits = limits or Limits()
    check_bytes(spec, "one input batch needs", math.prod(shape), limits, spec.input.place)
    dtype = torch.float32 if spec.input.tokens is None else torch.int64
    with torch.no_grad():
        x = torch.empty(shape, device="meta", dtype=dtype)
        layers, out = planner.chain(spec.layers, x)
    whole = _combine(LayerSpec("sequential"), (tuple(layers),), out)
    if whole.parameters == 0:
        raise spec.error("the network has no trainable parameters", spec.layers[0].place)
    small_enough = whole.parameters <= limits.parameters and streams is None
    if (streams or small_enough) and not fits(whole, limits):
        check_blocks(spec, whole, limits)
    else:
        check_whole(spec, whole, batch_size, limits)
    planner.settle()
    return whole


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
        self.apart: dict[tuple[Any, ...], bool | None] = {}
        self.unsettled: dict[tuple[Any, ...], tuple[LayerSpec, dict[str, Any], Tensor]] = {}
        self.previous: LayerSpec | None = None

    def fail(self, layer: LayerSpec, message: str, hint: str = "") -> NoReturn:
        raise self.spec.error(message, layer.place, hint)

    def chain(self, layers: tuple[LayerSpec, ...], x: Tensor) -> tuple[list[Planned], Tensor]:
        chain = []
        for layer in layers:
            planned, x = self.layer(layer, x)
            chain.append(planned)
        return chain, x

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
            hint = "begin with Embedding: {embedding_dim: 64}"
            self.fail(layer, f"{layer.kind} takes floating point input, not tokens", hint)
        if layer.kind in kinds(Trait.SEQUENCE) and x.dim() != 3:
            wanted = "a sequence, [positions, features],"
            self.fail(layer, f"{layer.kind} takes {wanted} and gets {_shape(x)}")
        spatial = _SPATIAL.fullmatch(layer.kind)
        if spatial and x.dim() != int(spatial[1]) + 2:  # torch would take the batch for channels
            gets = f"{_shape(x)} from {self._source()}"
            self.fail(layer, f"{layer.kind} takes {_IMAGES[spatial[1]]} and gets {gets}")
        arguments = self._resolve(layer, x)
        try:
            with torch.device("meta"):
                module = layer_class(layer.kind)(**arguments)
            fits = x.is_floating_point() != ("Embedding" in layer.kind)
            shape = output_shape(layer.kind, arguments, tuple(x.shape)) if fits else None
            out = torch.empty(shape, device="meta", dtype=torch.float32) if shape else module(x)
            apart = self._keeps_samples_apart(layer.kind, arguments, x, out, shape)
        except Exception as error:
            self._refuse(layer, x, error)
        if not isinstance(out, Tensor):
            self.fail(layer, f"{layer.kind} does not return one tensor")
        if out.numel() == 0:
            self.fail(layer, f"{layer.kind} gives an empty output, {list(out.shape[1:])}")
        if apart is None:
            key = (layer.kind, str(arguments), x.shape[1:])
            self.unsettled.setdefault(key, (layer, arguments, x[:2]))
        elif not apart:
            self._refuse_mixing(layer)
        parameters = sum(p.numel() for p in module.parameters())
        # Each weight of an output feature is used once for each of that feature's values.
        work = out.numel() * parameters // (arguments.get("out_channels") or out.shape[-1])
        activations = out.numel() + _inside(layer.kind, arguments, x)
        return Planned(layer, arguments, (), parameters, activations, work, out.numel()), out

    def settle(self) -> None:
        """Run the layers that were too large to be run before all were held against the limits."""
        for layer, arguments, x in self.unsettled.values():
            try:
                apart = apart_in_fact(layer.kind, arguments, x)
            except Exception as error:
                self._refuse(layer, x, error)
            if not apart:
                self._refuse_mixing(layer)

    def _refuse_mixing(self, layer: LayerSpec) -> NoReturn:
        message = f"{layer.kind} acts across the samples of the batch, dimension 0"
        hint = "its dimensions count the batch's as the first: give it a dim of 1 or more"
        self.fail(layer, message, hint)

    def _keeps_samples_apart(
        self, kind: str, arguments: dict[str, Any], x: Tensor, out: Any, formula: Any
    ) -> bool | None:
        """Whether what comes out is the batch still; ``formula``: its shape, where one is known."""
        if not isinstance(out, Tensor) or not out.numel() or x.shape[0] < 2:
            return not isinstance(out, Tensor) or out.shape[:1] == x.shape[:1]
        one_dimension = not isinstance(arguments.get("normalized_shape"), list)
        if out.shape[0] != x.shape[0] or (formula and one_dimension):
            return bool(out.shape[0] == x.shape[0])
        key = (kind, str(arguments), x.shape)
        if key not in self.apart:
            size = x.numel() + out.numel() + _inside(kind, arguments, x)
            self.apart[key] = keeps_samples_apart(kind, arguments, x, size)
        return self.apart[key]

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
                value = arguments.setdefault(name, inferred)
                last = value[-1] if isinstance(value, list) else value
                # A vocabulary may be larger than the tokens that this input draws from.
                if last < inferred if name == "num_embeddings" else last != inferred:
                    gives = f"{self._source()} gives {inferred}"
                    hint = f"leave '{name}' out: it follows from the input"
                    self.fail(layer, f"{layer.kind}: {name} is {last}, but {gives}", hint)
        return arguments

    def _inferred(self, layer: LayerSpec, name: str, x: Tensor) -> int:
        if name == "num_embeddings":
            if self.spec.input.tokens is None:
                hint = "say how many there are: input: {shape: [128], tokens: 50257}"
                self.fail(layer, f"{layer.kind} needs integer tokens for input", hint)
            return self.spec.input.tokens
        inferred = INFERENCES[name](x)
        if inferred is None:
            self.fail(layer, f"{layer.kind}: '{name}' does not follow from {_shape(x)}")
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
            message = f"{layer.kind} needs more than one value per channel"
            message += "; the batch has one sample"
            raise self.spec.error(message, layer.place, "use --batch-size 2 or more") from error
        message = f"{layer.kind} cannot take the output of {self._source()}, {_shape(x)}: "
        raise self.spec.error(message + reason[:200], layer.place) from error

    def _sequential(self, layer: LayerSpec, x: Tensor) -> tuple[Planned, Tensor]:
        inside, out = self.chain(layer.branches[0], x)
        return _combine(layer, (tuple(inside),), out), out

    def _repeat(self, layer: LayerSpec, x: Tensor) -> tuple[Planned, Tensor]:
        iterations: list[tuple[Planned, ...]] = []
        while len(iterations) < layer.times:
            inside, out = self.chain(layer.branches[0], x)
            same = out.shape == x.shape and out.dtype == x.dtype
            # A body that preserves the shape plans the same way each time.
            iterations += [tuple(inside)] * (layer.times - len(iterations) if same else 1)
            x = out
        return _combine(layer, tuple(iterations), x), x

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
            kind = last.kind if last else "input"
            ends = f"{kind} ends in {_shape(out)}, the skip in {_shape(skip)}"
            hint = "make them equal, or give the residual a 'shortcut' that changes the shape"
            self.fail(layer, f"residual: the branch's {ends}", hint)
        self.previous = layer
        return _combine(layer, tuple(branches), out), out

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
            self.fail(layer, f"concat: outputs of shapes {shapes} cannot be joined along dim {dim}")
        first[across] = sum(out.shape[across] for out in outputs)
        joined = torch.empty(first, device="meta", dtype=outputs[0].dtype)
        self.previous = layer
        return _combine(layer, tuple(branches), joined), joined


def _inside(kind: str, arguments: Mapping[str, Any], x: Tensor) -> int:
    """Elements that a layer keeps beside its output: gates, projections, a mask, padding."""
    if kind == "LocalResponseNorm":  # pads the channels by its size
        return x.numel() // x.shape[1] * (x.shape[1] + int(arguments["size"]))
    if kind not in kinds(Trait.SEQUENCE):
        return 0
    batch, length, features = x.shape
    if kind in kinds(Trait.RECURRENT):
        gates = {"RNN": 4, "GRU": 10, "LSTM": 11}[kind]  # as measured, with the layer's output
        gates *= arguments.get("num_layers", 1) * (2 if arguments.get("bidirectional") else 1)
        return int(batch * length * arguments["hidden_size"] * gates)
    whole = kind == "TransformerEncoderLayer"
    mask = length * length if arguments.get("causal") else 0
    forward = arguments.get("dim_feedforward", 2048) if whole else 0
    heads = arguments["nhead" if whole else "num_heads"]
    # torch keeps the scores of every head where it drops some, and else none of them.
    kept = 2 * heads * length if arguments.get("dropout", 0.1 if whole else 0.0) else 0
    return int(mask + batch * length * (4 * features + 2 * forward + kept))


def _combine(layer: LayerSpec, branches: tuple[tuple[Planned, ...], ...], out: Tensor) -> Planned:
    inside = [planned for branch in branches for planned in branch]
    parameters = sum(planned.parameters for planned in inside)
    activations = sum(planned.activations for planned in inside)
    work = sum(planned.work for planned in inside)
    arguments, size = dict(layer.arguments), out.numel()
    return Planned(layer, arguments, branches, parameters, activations, work, size)


def _shape(x: Tensor) -> str:
    return f"shape {list(x.shape[1:])}"
