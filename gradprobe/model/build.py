"""``NetworkSpec`` → ``torch.nn.Module``: planned first, then allocated.

Each layer draws from a seed derived from (seed, path), never from a stream that another layer
shares.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from gradprobe.errors import Place, first_line, out_of_memory
from gradprobe.model.layers import Concat, Residual, layer_class
from gradprobe.model.plan import Planned, plan
from gradprobe.model.repeats import holds_weights
from gradprobe.model.rows import Row
from gradprobe.model.seeds import derive
from gradprobe.spec.layers import Trait, kinds
from gradprobe.spec.network import InitSpec, NetworkSpec, walk
from gradprobe.spec.options import Limits

_BUILDING = threading.Lock()  # torch's default initialisations draw from the global generator


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
        super().__init__(OrderedDict(layers))
        self.spec = spec
        self.rows = rows
        self.places = places
        self.work = work


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
    network = assembled(plan(spec, batch_size, limits), spec, seed)
    network.to(dtype=dtype, device=device)
    return network


def assembled(planned: Planned, spec: NetworkSpec, seed: int) -> Network:
    """The network of a plan, in float32 on torch's default device.

    Raises:
        InputError: an initialisation that torch refuses.
    """
    builder = Builder(spec, seed)
    with own_generator():
        layers = builder.children(planned.layers, "")
    builder.check_inits()
    rows = builder.rows(planned.layers, layers)
    return Network(spec, layers, rows, builder.places, planned.work)


@contextmanager
def own_generator() -> Iterator[None]:
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
    *("spec", "rows", "places", "work"),  # of Network
    *("made", "changed", "saved", "store", "_made", "_changes"),  # of Streamed
}


class Builder:
    """Makes the modules of planned layers, each by the seed of its path."""

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
        return nn.Sequential(OrderedDict(self.children(layers, path)))

    def module(self, layer: Planned, path: str) -> nn.Module:
        kind = layer.spec.kind
        if layer.spec.is_leaf:
            return self.leaf(layer, path)
        if kind == "repeat":
            blocks = {str(i): self.chain(b, f"{path}.{i}") for i, b in enumerate(layer.branches)}
            return nn.Sequential(OrderedDict(blocks))
        if kind == "concat":
            chains = [self.chain(b, f"{path}.{i}") for i, b in enumerate(layer.branches)]
            return Concat(chains, layer.arguments.get("dim", 1))
        if kind == "residual":
            return self.residual(layer, path)
        return nn.Sequential(OrderedDict(self.children(layer.branches[0], path)))

    def leaf(self, layer: Planned, path: str) -> nn.Module:
        torch.default_generator.manual_seed(derive(self.seed, path))
        module = layer_class(layer.spec.kind)(**layer.arguments)
        if layer.spec.place:
            self.places[module] = layer.spec.place
        inits = {**self.spec.init.get(layer.spec.kind, {}), **layer.spec.init}
        longest_first = sorted(inits, key=len, reverse=True)
        used = set()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                key = next((key for key in longest_first if _names(key, name)), None)
                if key is not None:
                    used.add(key)
                    self.used_inits.add(id(inits[key]))
                    self.initialise(parameter, inits[key], f"{path}.{name}")
        for key in layer.spec.init:
            if key not in used:
                names = ", ".join(name for name, _ in module.named_parameters()) or "none"
                message = f"init: {layer.spec.kind} has no parameter '{key}'"
                place = layer.spec.init[key].place
                raise self.spec.error(message, place, f"its parameters: {names}")
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
            if holds_weights(leaf) and not isinstance(leaf, nn.PReLU)
        ]
        if not holders:
            raise self.spec.error("zero_init: the branch has no parameters", layer.spec.place)
        last = leaves[holders[-1]]
        with torch.no_grad():
            for name, parameter in last.named_parameters():
                # Of an attention only what comes last: the values behind it stay as they are.
                if not isinstance(last, nn.MultiheadAttention) or name.startswith("out_proj"):
                    parameter.zero_()
        for leaf in leaves[holders[-1] + 1 :]:
            kind = type(leaf).__name__
            if kind in kinds(Trait.OFFSET):
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


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
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
