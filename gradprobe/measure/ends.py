"""What the autograd graph and the first layer's input tell of both ends of a network."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from gradprobe.measure.attention import ATTENDING, entropy_of
from gradprobe.measure.graph import (
    STRAIGHT,
    behind_shapes,
    is_linear,
    is_weight,
    kind_of,
    left_by_dropout,
    next_behind,
    saved,
    signed,
    weight_behind,
)
from gradprobe.measure.held_back import ENDING, below_zero, held_back
from gradprobe.measure.losses import RANGES, losses, tail
from gradprobe.measure.norms import shares_near
from gradprobe.measure.states import Loops
from gradprobe.measure.surroundings import UNKNOWN, Surroundings
from gradprobe.model.rows import parameters_of
from gradprobe.model.sharded import is_sharded
from gradprobe.model.tensors import first_tensor, in_float64, named_tensors, nodes_behind, walk

_FLAT = 0.01  # from an end of a sigmoid's range, 0 to 1; of tanh's at the same share
_SAMPLE = 1 << 16  # elements of an activation that are looked at
_CASCADE = 200  # activations that are looked at

_STEPS = ("Round", "Sign", "Floor", "Ceil", "Trunc")  # their slope is zero everywhere
# Nodes of which nothing is read, and of which each layer has some.
_SILENT = frozenset(
    "torch::autograd::AccumulateGrad T Add View UnsafeView Relu Gelu Transpose Permute".split()
)
_LINEAR = frozenset(("Addmm", "Mm"))
_BATCHED = ("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm")
_LAYERS = _LINEAR | {"Convolution", "MkldnnConvolution"}


class Graph:
    """What the graph behind a loss tells: read whole, or, where a chain is cut, part by part."""

    def __init__(self, loss: Tensor, output: Tensor | None) -> None:
        self.around, self.readable = UNKNOWN, True
        self.looked_at = 0
        self.curved: dict[str, list[Tensor]] = {"Sigmoid": [], "Tanh": []}  # their outputs
        self.tail: set[Node] = set()
        self.behind: set[Node] = set()  # the loss, and an activation at the output
        self.layers: int | None = 0  # linear ones in a row; None where something is curved
        with self._trying():
            self.around = Surroundings(losses=tuple(losses(loss, output)))
            self.tail = set(tail(loss.grad_fn))
            self.behind = _until(loss.grad_fn, output, self.tail)

    def read(self, ends: Sequence[Tensor], named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Read the part behind ``ends``, the last of them first; that of the loss comes first.

        Args:
            named: the part's parameters with their names.
        """
        with self._trying():
            if self.readable:
                self._read([end.grad_fn for end in ends], {id(p): name for name, p in named})
        self.tail, self.behind = set(), set()  # their nodes hold the weights

    @contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, AttributeError, ValueError):
            # Nodes of another release of torch, or saved by a hook.
            self.around, self.readable = UNKNOWN, False

    def _read(self, roots: list[Node | None], names: Mapping[int, str]) -> None:
        loops = Loops(roots)
        kinds = list(map(kind_of, loops.nodes))
        silent = _SILENT if "Softmax" in kinds else _SILENT | _LINEAR
        for node, kind in zip(loops.nodes, kinds, strict=True):
            if kind not in silent or node in self.behind:
                self._note(node, kind)
        for kind, results in self.curved.items():
            low, high = RANGES[kind]
            flat = max(shares_near(results, low, high, _FLAT), default=0.0)
            if flat > self.around.flat:
                self.around = self.around._replace(flat=flat, flat_kind=kind)
            results.clear()
        self._count(loops.nodes, kinds)
        if "Embedding" in kinds and not self.around.tied:
            self.around = self.around._replace(tied=_is_tied(loops.nodes, kinds))
        state, before = loops.state(names), self.around.state
        if state is not None and (before is None or state.growth > before.growth):
            self.around = self.around._replace(state=state)

    def _count(self, nodes: Sequence[Node], kinds: Sequence[str]) -> None:
        """Count the linear layers as long as there is nothing else."""
        pairs = [pair for pair in zip(nodes, kinds, strict=True) if pair[0] not in self.behind]
        if self.layers is not None and all(_is_straight(node, kind) for node, kind in pairs):
            self.layers += _in_a_row(node for node, _ in pairs)
        else:
            self.layers = None
        self.around = self.around._replace(straight=self.layers or 0)

    def _note(self, node: Node, kind: str) -> None:
        around = self.around
        if kind in ("Sigmoid", "Tanh") and self.looked_at < _CASCADE:
            self.looked_at += 1
            result = saved(node, "result")
            if result is not None and result.numel() >= 16:
                self.curved[kind].append(result.flatten()[:_SAMPLE])
        elif kind in ("Softmax", "LogSoftmax"):
            around = _with_softmax(around, node, node in self.tail)
        elif kind in _STEPS:
            around = around._replace(steps=tuple(dict.fromkeys((*around.steps, kind.lower()))))
        elif kind in ENDING or (kind == "Relu" and node in self.behind):
            if self.looked_at < _CASCADE:
                self.looked_at += 1
                pairs = (around.ended, (ENDING.get(kind, "relu"), held_back(node, kind)))
                ended = max((p for p in pairs if p), key=lambda p: p[1])
                around = around._replace(ended=ended)
        elif kind == "Log":
            share = max(around.below_zero, below_zero(next_behind(node)))
            around = around._replace(below_zero=share)
        elif kind in ("NativeLayerNorm", "NativeGroupNorm"):
            size = min(_normalised(node), around.least_normalised or sys.maxsize)
            around = around._replace(least_normalised=size)
        elif kind in _BATCHED:
            size = min(_values_a_channel(node), around.least_batched or sys.maxsize)
            around = around._replace(least_batched=size)
        if kind.startswith(ATTENDING) and self.looked_at < _CASCADE:
            self.looked_at += 1
            entropies = (around.entropy, entropy_of(node, heads=2, queries=64))
            present = [entropy for entropy in entropies if entropy is not None]
            around = around._replace(entropy=min(present, default=None))
        elif kind in ("Mul", "NativeDropout") and self.looked_at < _CASCADE:
            units = left_by_dropout(node, kind)
            self.looked_at += units is not None
            counts = [pair for pair in (around.dropped, units) if pair is not None]
            around = around._replace(dropped=min(counts, default=None))
        elif kind in _LINEAR and _reads_softmax(node):
            around = around._replace(softmax_between=around.softmax_between + 1)
        self.around = around


def _until(root: Node | None, output: Tensor | None, tail: set[Node]) -> set[Node]:
    """Of the tail the nodes from the loss to the output, with the activation that makes it."""
    end = behind_shapes(output.grad_fn) if output is not None else None
    end = next_behind(end) if kind_of(end) in RANGES or kind_of(end) == "LogSoftmax" else end
    within = tail - {end}
    stack = [root] if root in within else []
    seen = set(stack)
    while stack:
        ahead = [n for n in nodes_behind(stack.pop()) if n in within and n not in seen]
        seen.update(ahead)
        stack += ahead
    return seen


def _is_straight(node: Node, kind: str) -> bool:
    """Whether what it gives is linear in what it gets, by factors that do not depend on that."""
    behind = nodes_behind(node)
    if kind in _LAYERS:
        return len(behind) < 2 or any(map(is_weight, behind))
    if kind in ("Add", "Sub"):  # a constant may be a rounding's: x + (x.round() - x).detach()
        return len(behind) > 1
    if kind in ("Mul", "Div"):  # a factor of each sample's own may be a mask: x * (x > 0)
        factors = [f for f in (saved(node, "self"), saved(node, "other")) if f is not None]
        scaled = bool(factors) and all(f.numel() == 1 for f in factors)
        return len(behind) < 2 and (scaled or left_by_dropout(node, kind) is not None)
    return kind in STRAIGHT


def _in_a_row(nodes: Iterable[Node]) -> int:
    """The most linear layers that a gradient goes through one after the other."""
    depths: dict[Node, int] = {}
    stack = list(nodes)
    while stack:
        node = stack[-1]
        behind = nodes_behind(node)
        if ahead := [n for n in behind if n not in depths]:
            stack += ahead
            continue
        stack.pop()
        deepest = max((depths[n] for n in behind), default=0)
        depths[node] = deepest + (kind_of(node) in _LAYERS)
    return max(depths.values(), default=0)


def _is_tied(nodes: Sequence[Node], kinds: Sequence[str]) -> bool:
    """Whether the weight of an embedding is that of a linear layer as well."""
    weights = {False: set[int](), True: set[int]()}
    for node, kind in zip(nodes, kinds, strict=True):
        if kind == "Embedding" or kind in (*_LINEAR, "Bmm"):
            behind = map(weight_behind, nodes_behind(node))
            weights[kind == "Embedding"].update(id(w) for w in behind if w is not None)
    return not weights[True].isdisjoint(weights[False])


def _reads_softmax(node: Node) -> bool:
    """Whether it is a linear layer that adds up what a softmax made sum to 1.

    Not one that mixes the heads of an attention: it adds up along another axis. Nor one behind
    which noise was added, as for a choice that is drawn (Gumbel-softmax).
    """
    weight, softmax = (behind_shapes(n) for n, _ in node.next_functions[:-3:-1])
    if softmax is None or kind_of(softmax) != "Softmax" or not is_linear(node):
        return False
    drawn = next_behind(softmax)
    drawn = next_behind(drawn) if kind_of(drawn) == "Div" else drawn
    if drawn is not None and kind_of(drawn) == "Add" and len(nodes_behind(drawn)) < 2:
        return False
    result, matrix = saved(softmax, "result"), weight_behind(weight)
    if result is None or matrix is None:
        return False
    summed = result.shape[signed(softmax._saved_dim)]  # type: ignore[attr-defined]
    return matrix.shape[-1] % summed == 0


def _normalised(node: Any) -> int:
    """How many elements a normalisation takes the mean of."""
    if kind_of(node) == "NativeLayerNorm":
        return math.prod(node._saved_normalized_shape)
    return int(node._saved_C * node._saved_HxW // node._saved_group)


def _values_a_channel(node: Any) -> int:
    """Of how many numbers a BatchNorm takes the mean; very many in eval mode, or where unknown."""
    x = saved(node, "input")
    return x.numel() // x.shape[1] if x is not None and node._saved_training else sys.maxsize


def unowned(output: Tensor | None, model: nn.Module, inputs: Collection[Tensor]) -> tuple[str, ...]:
    """Leaves from the inputs to the output, those that ``parameters()`` does not have.

    Only those that the model keeps: one made in the forward pass is no weight.
    """
    if output is None or any(map(is_sharded, model.parameters())):  # FSDP2 computes with others
        return ()
    owned = {id(p) for p in model.parameters()} | {id(x) for x in inputs}
    another_s = set(walk([x.grad_fn for x in inputs]))
    nodes = (node for node in walk([output.grad_fn]) if node not in another_s)
    leaves = (getattr(node, "variable", None) for node in nodes)
    strays = {id(x): x for x in leaves if x is not None and id(x) not in owned}
    if not strays:
        return ()
    names = dict(_kept(model)) | {id(p): name for name, p in parameters_of(model)}
    return tuple(
        names.get(key, f"a parameter of shape {list(leaf.shape)}")
        for key, leaf in strays.items()
        if key in names or isinstance(leaf, nn.Parameter)
    )


def unread(output: Any, loss: Tensor) -> dict[int, str]:
    """By id, the leaves behind an output that the loss leaves out, with that output's name."""
    named = [(n, t) for n, t in named_tensors(output, "output") if t.grad_fn is not None]
    if len(named) < 2:
        return {}
    behind_loss = set(walk([loss.grad_fn]))
    left_out = [(name, tensor) for name, tensor in named if tensor.grad_fn not in behind_loss]
    return {
        id(leaf): name
        for name, tensor in reversed(left_out)
        for node in walk([tensor.grad_fn])
        if (leaf := getattr(node, "variable", None)) is not None
    }


def _kept(model: nn.Module) -> Iterator[tuple[int, str]]:
    """Tensors in plain attributes, lists and dictionaries of the modules, with where they are."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if not name.startswith("_"):
                yield from _inside(value, f"{path}.{name}" if path else name)


def _inside(value: Any, name: str, depth: int = 0) -> Iterator[tuple[int, str]]:
    if isinstance(value, Tensor):
        yield id(value), name
    elif isinstance(value, nn.Module):
        yield from ((id(p), f"{name}.{own}") for own, p in value.named_parameters())
    elif isinstance(value, Mapping) and depth < 3:
        for key, item in islice(value.items(), 1000):
            yield from _inside(item, f"{name}[{key!r}]", depth + 1)
    elif isinstance(value, (list, tuple)) and depth < 3:
        for index, item in enumerate(islice(value, 1000)):
            yield from _inside(item, f"{name}[{index}]", depth + 1)


def _with_softmax(around: Surroundings, node: Node, behind: bool) -> Surroundings:
    result = saved(node, "result")
    if result is None or not result.dim():
        return around
    dim = signed(node._saved_dim)  # type: ignore[attr-defined]
    one = behind and result.shape[dim] == 1
    broken = result.isnan()
    alone = broken.all(dim)
    whole = bool((broken.any(dim) == alone).all()) and bool(alone.any()) and not bool(alone.all())
    return around._replace(
        softmax_of_one=around.softmax_of_one or one, masked=around.masked or whole
    )


# ---- the input


def of_input(around: Surroundings, module: nn.Module, x: Tensor) -> Surroundings:
    """What the first module with weights reads, where that is data and no norm's business."""
    if "Norm" in type(module).__name__ or not x.numel() or _follows_from_weights(x):
        return around
    if x.layout is not torch.strided:  # which features are 0 everywhere does not say their size
        return around
    x = in_float64(x.detach())
    rms = float(x.square().mean().sqrt())
    spread = None
    if x.dim() == 2 and x.shape[1] > 1:
        sizes = x.square().mean(0).sqrt()
        sizes = sizes[sizes > 0]
        spread = float(sizes.max() / sizes.min()) if len(sizes) > 1 else None
    return around._replace(input_rms=rms, input_spread=spread)


def _follows_from_weights(x: Tensor) -> bool:
    nodes = islice(walk([x.grad_fn]), 1000)
    return any(isinstance(getattr(node, "variable", None), nn.Parameter) for node in nodes)


def main_output(output: Any) -> Tensor | None:
    """The output that a gradient can come from."""
    tensor = first_tensor(output)
    return tensor if tensor is not None and tensor.requires_grad else None
