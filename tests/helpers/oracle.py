"""A second opinion on residual networks: walks a spec on its own and enumerates every path.

A spec is plain Python here: a list of ``"LayerNorm"`` and ``{"Linear": {"out_features": 4}}``. Of
gradprobe's modules only the leaves are used, found by their path.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.model.build import Network, build
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.sources.yaml import parse

Function = Callable[[Tensor], Tensor]
Layer = Any  # a name, or a mapping from a name to its arguments


class Link(NamedTuple):
    """y = skip(x) + branch(x), or y = branch(x) where there is no skip."""

    branch: Function
    skip: Function | None = None

    def run(self, x: Tensor) -> Tensor:
        return self.branch(x) if self.skip is None else self.skip(x) + self.branch(x)


def spec_of(layers: list[Layer], shape: list[int], tokens: int | None = None) -> NetworkSpec:
    """The spec, by way of its text: JSON is YAML."""
    given = {"shape": shape, "tokens": tokens} if tokens else {"shape": shape}
    return parse(json.dumps({"input": given, "layers": layers}).encode(), "net.yaml")


def network_of(
    layers: list[Layer],
    shape: list[int],
    tokens: int | None = None,
    batch: int = 4,
    dtype: torch.dtype = torch.float64,
) -> Network:
    return build(spec_of(layers, shape, tokens), seed=1, batch_size=batch, dtype=dtype)


def links(network: nn.Module, layers: list[Layer]) -> list[Link]:
    """The chain of all layers, with chains inside it opened."""
    return _children(network, layers, "")


def run(chain: list[Link], x: Tensor) -> Tensor:
    for link in chain:
        x = link.run(x)
    return x


def values(chain: list[Link], x: Tensor) -> list[Tensor]:
    """The input of each link, and the last output."""
    found = [x.detach()]
    with torch.no_grad():
        for link in chain:
            found.append(link.run(found[-1]))
    return found


def pull(function: Function, x: Tensor, gradient: Tensor) -> Tensor:
    """Jᵀ times ``gradient``, with J the Jacobian of ``function`` at ``x``."""
    leaf = x.detach().clone().requires_grad_()
    (back,) = torch.autograd.grad(
        function(leaf), leaf, gradient, allow_unused=True, materialize_grads=True
    )
    return back


def gradient(chain: list[Link], x: Tensor, loss: Function) -> Tensor:
    """∂L/∂x by one backward pass through all of the chain."""
    leaf = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(run(chain, leaf)), leaf)
    return found


def all_paths(chain: list[Link], x: Tensor, loss: Function) -> dict[tuple[int, ...], Tensor]:
    """What reaches ``x`` along each path. A path's name has a 1 for each branch, a 0 for each skip.

    One vector-Jacobian product after the other: 2^n of them reach the bottom.
    """
    at = values(chain, x)
    paths = {(): gradient([], at[-1], loss)}
    for link, value in zip(reversed(chain), reversed(at[:-1]), strict=True):
        if link.skip is None:
            paths = {key: pull(link.branch, value, g) for key, g in paths.items()}
        else:
            skipped = {(0, *key): pull(link.skip, value, g) for key, g in paths.items()}
            branched = {(1, *key): pull(link.branch, value, g) for key, g in paths.items()}
            paths = skipped | branched
    return paths


def grouped(paths: dict[tuple[int, ...], Tensor]) -> list[Tensor]:
    """The sums over the paths that go through 0, 1, … branches."""
    blocks = len(next(iter(paths)))
    return [
        torch.stack([g for key, g in paths.items() if sum(key) == j]).sum(0)
        for j in range(blocks + 1)
    ]


def dense_jacobian(function: Function, x: Tensor) -> Tensor:
    """The whole batch's Jacobian as one square matrix, samples and features flattened."""
    found = torch.autograd.functional.jacobian(function, x)
    assert isinstance(found, Tensor)
    return found.reshape(x.numel(), x.numel())


def says(shown: str, value: float) -> bool:
    """Whether a number in the text, to its last digit, is ``value``; a bare 0 or 1 is exact."""
    if shown in ("0", "1"):
        return abs(value - float(shown)) < 1e-12
    number = Decimal(shown.replace(",", ""))
    _, _, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    return abs(float(number) - value) <= 0.501 * 10.0**exponent


def _children(network: nn.Module, layers: list[Layer], prefix: str) -> list[Link]:
    return [
        link
        for index, layer in enumerate(layers)
        for link in _layer(network, layer, f"{prefix}{index}")
    ]


def _body(network: nn.Module, layers: list[Layer], path: str) -> list[Link]:
    """A body of one layer stands at the path itself."""
    if len(layers) == 1:
        return _layer(network, layers[0], path)
    return _children(network, layers, f"{path}.")


def _layer(network: nn.Module, layer: Layer, path: str) -> list[Link]:
    if isinstance(layer, str):
        return [Link(network.get_submodule(path))]
    [(kind, given)] = layer.items()
    if kind == "repeat":
        return [
            link
            for i in range(given["times"])
            for link in _body(network, given["layers"], f"{path}.{i}")
        ]
    if kind == "sequential":
        return _children(network, given, f"{path}.")
    if kind == "residual":
        return [_residual(network, given if isinstance(given, dict) else {"layers": given}, path)]
    return [Link(network.get_submodule(path))]


def _residual(network: nn.Module, given: dict[str, Any], path: str) -> Link:
    branch = _children(network, given["layers"], f"{path}.")
    shortcut = _body(network, given["shortcut"], f"{path}.shortcut") if "shortcut" in given else []
    return Link(
        lambda x: given.get("branch_scale", 1) * run(branch, x),
        lambda x: given.get("skip_scale", 1) * run(shortcut, x),
    )
