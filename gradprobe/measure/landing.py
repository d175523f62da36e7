"""Where the numbers that go into a row come out again, and its linear shortcut: read off the graph.

A number is carried by what moves it (a view, a slice, a concatenation, a permutation) and by what
works on each number by itself (a sum, a ReLU, a gate, a normalisation). A matrix, a convolution, a
softmax and a pooling mix numbers, and carry none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from gradprobe.measure.graph import kind_of

Edge = tuple[Node, int]  # a node, and which of its outputs: where the gradient of a tensor arrives
_Ahead = Callable[[Node], list[Edge]]  # the edges behind a node that a walk goes on to
_Gradients = list[Tensor | None]

_MOST = 1000  # nodes of one walk
_MOVES = frozenset(
    "Alias AsStrided Cat ChannelShuffle Clone ConstantPadNd Diagonal Expand Flip Gather Index "
    "IndexSelect Permute PixelShuffle PixelUnshuffle Repeat Reshape ReshapeAlias Roll Select Slice "
    "Split SplitWithSizes Squeeze Stack T ToCopy Transpose Unbind Unfold UnsafeSplit UnsafeView "
    "Unsqueeze View torch::autograd::CopySlices".split()
)
_ONE_BY_ONE = frozenset(
    "Add Addcmul Celu Clamp ClampMax ClampMin CudnnBatchNorm Div Elu FusedRmsNorm Gelu Hardsigmoid "
    "Hardswish Hardtanh LeakyRelu Lerp MaskedFill MiopenBatchNorm Mish Mul NativeBatchNorm "
    "NativeDropout NativeGroupNorm NativeLayerNorm Neg PreluKernel Relu RreluWithNoise Rsub "
    "Sigmoid Silu Softplus Sub Tanh Threshold Where".split()
)
_CHAIN = 16  # nodes that work one by one, in a row


def edge_at(tensor: Tensor) -> Edge | None:
    """Where the gradient of ``tensor`` arrives, also where it is a leaf."""
    if not tensor.requires_grad:
        return None
    node, output, *_ = get_gradient_edge(tensor)
    return node, output


def carried(seeds: Mapping[Edge, Tensor], stops: Collection[Edge]) -> dict[Edge, Tensor]:
    """Pᵀv, with P_ij = 1 where input j lands at output i; of the inputs that land somewhere.

    What works on each number by itself hands on the v that it gets, as if its slope were 1.

    Args:
        seeds: v at each output.
        stops: the inputs; no walk goes on behind them.
    """

    def pull(node: Node, gradients: _Gradients) -> Iterable[Tensor | None]:
        if kind_of(node) in _MOVES:
            return _called(node, gradients)
        return [gradients[0]] * len(node.next_functions)

    return _pulled(seeds, stops, _carrying, pull)


def shortcut(v: Tensor, output: Edge, stop: Edge) -> Tensor | None:
    """Sᵀv of a row y = S·x + F(x) with a linear map S, as where a ResNet changes its width.

    One summand follows from the input through one matrix, and the other through more, and from the
    same numbers: of a recurrent layer's W·x_t + U·h it follows from earlier ones. ``None`` where
    the row has no such sum.
    """
    depths = _depths(output, stop)
    if depths.get(output) != 1:
        return None

    def following(node: Node) -> list[Edge]:  # and no weight, to which a gradient would be added
        return [e for e in _behind(node) if e in depths]

    def nearest(node: Node) -> list[Edge]:
        least = min(depths[e] for e in following(node))
        return [e for e in following(node) if depths[e] == least]

    for node in _in_order([output[0]], {stop}, nearest):
        summands = following(node) if kind_of(node) == "Add" else []
        if len({depths[e] for e in summands}) == 2 and _overlap(summands, stop, following):
            return _pulled({output: v}, {stop}, nearest, _called).get(stop)
    return None


def _overlap(summands: list[Edge], stop: Edge, following: _Ahead) -> bool:
    """Whether the summands follow from the same numbers of the input."""
    common: Tensor | None = None
    for node, output in summands:
        about = node._input_metadata[output]
        ones = torch.ones(about.shape, dtype=about.dtype, device=about.device)
        back = _pulled({(node, output): ones}, {stop}, following, _called).get(stop)
        if back is not None and back.any():  # a branch that starts at zero tells nothing
            common = back != 0 if common is None else common & (back != 0)
    return common is not None and bool(common.any())


def origins(start: Edge) -> list[Edge]:
    """``start`` and where its numbers come from one by one, back to where several are joined."""
    chain = [start]
    while len(chain) < _CHAIN and len(ahead := _carrying(chain[-1][0])) == 1:
        chain += ahead
    return chain


def reachable(starts: Iterable[Edge], stops: Collection[Edge]) -> set[Edge]:
    """The edges that numbers at ``starts`` are carried from, ``starts`` among them."""
    starts = list(starts)
    roots = [node for node, output in starts if (node, output) not in stops]
    nodes = _in_order(roots, stops, _carrying)
    return {*starts, *(e for node in nodes for e in _carrying(node))}


def _carrying(node: Node) -> list[Edge]:
    """The edges behind a node from which it carries numbers: of the shape of what it gives."""
    kind = kind_of(node)
    if kind in _MOVES:
        return _behind(node)
    if kind not in _ONE_BY_ONE:
        return []
    shape = node._input_metadata[0].shape
    return [e for e in _behind(node) if e[0]._input_metadata[e[1]].shape == shape]


def _called(node: Node, gradients: _Gradients) -> Iterable[Tensor | None]:
    """What the node's own derivative makes of the gradients at its outputs."""
    result: Any = node(*gradients)  # type: ignore[operator]
    return result if isinstance(result, tuple) else (result,)


def _behind(node: Node) -> list[Edge]:
    return [(n, output) for n, output in node.next_functions if n is not None]


def _pulled(
    seeds: Mapping[Edge, Tensor],
    stops: Collection[Edge],
    ahead: _Ahead,
    pull: Callable[[Node, _Gradients], Iterable[Tensor | None]],
) -> dict[Edge, Tensor]:
    """What arrives at ``stops``, pulled from node to node along the edges ``ahead``."""
    arriving: dict[Edge, Tensor] = {}

    def add(at: Edge, gradient: Tensor) -> None:
        arriving[at] = arriving[at] + gradient if at in arriving else gradient

    for at, gradient in seeds.items():
        add(at, gradient)
    for node in _in_order([n for n, i in seeds if (n, i) not in stops], stops, ahead):
        outputs = range(len(node._input_metadata))
        gradients = [arriving.get((node, i)) if (node, i) not in stops else None for i in outputs]
        if all(gradient is None for gradient in gradients):
            continue
        edges = ahead(node)
        with torch.no_grad():
            pulled = list(pull(node, gradients))
        for (behind, output), back in zip(node.next_functions, pulled, strict=False):
            if behind is not None and back is not None and (behind, output) in edges:
                # As the engine does where a factor was broadcast: a gate for each channel.
                add((behind, output), back.sum_to_size(behind._input_metadata[output].shape))
    return {at: arriving[at] for at in stops if at in arriving}


def _in_order(roots: Iterable[Node], stops: Collection[Edge], ahead: _Ahead) -> list[Node]:
    """The nodes from ``roots`` to ``stops``, each before those behind it; none of a long walk."""
    done: dict[Node, None] = {}
    stack = list(dict.fromkeys(roots))
    while stack and len(done) < _MOST:
        node = stack[-1]
        new = [e[0] for e in ahead(node) if e not in stops and e[0] not in done]
        if new:
            stack += new
        else:
            done[stack.pop()] = None
    return list(done)[::-1] if not stack else []


def _depths(output: Edge, stop: Edge) -> dict[Edge, float]:
    """Of each edge that follows from ``stop``: the fewest matrices between the two."""
    depths: dict[Edge, float] = {stop: 0}
    for node in reversed(_in_order([output[0]], {stop}, _behind)):
        ahead = [depths[e] for e in _behind(node) if e in depths]
        if ahead:
            least = min(ahead) + (not _carrying(node) and not _is_linear(node))
            depths |= {(node, i): least for i in range(len(node._input_metadata))}
    return depths


def _is_linear(node: Node) -> bool:
    """Whether it averages or repeats, without a weight."""
    return kind_of(node).startswith(("AvgPool", "AdaptiveAvgPool", "Mean", "Upsample"))
