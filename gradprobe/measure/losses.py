"""The autograd graph behind a loss → what kinds of loss the output goes into."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node

from gradprobe.measure.graph import (
    behind_constant,
    behind_shapes,
    is_weight,
    kind_of,
    left_by_dropout,
    next_behind,
    saved,
    signed,
)
from gradprobe.measure.surroundings import LossProfile
from gradprobe.model.tensors import in_float64, nodes_behind

_UNIT = 1e-3  # how far from 1 the length of a unit vector may be
_NO_SUM = 0.1  # the logarithm of a sum of probabilities, which should be 0

RANGES = {
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Relu": (0.0, math.inf),
}
_BINARY = "BinaryCrossEntropy"
_DISTANCES = frozenset(("MseLoss", "SmoothL1Loss", "HuberLoss"))
_COMPARING = (*_DISTANCES, "Sub", "Rsub", "Mul")
_CROSS_ENTROPIES: dict[str, Callable[..., Tensor]] = {
    "NllLoss": F.nll_loss,
    "NllLoss2D": F.nll_loss,
    "BinaryCrossEntropy": F.binary_cross_entropy,
    "BinaryCrossEntropyWithLogits": F.binary_cross_entropy_with_logits,
}


def losses(loss: Tensor, output: Tensor | None) -> Iterator[LossProfile]:
    """What each loss behind the last weights gets."""
    for node in tail(loss.grad_fn):
        kind = kind_of(node)
        before = next_behind(node)
        before = behind_constant(before) if kind == "Log" else before
        after, normalised = behind_shapes(before), False
        if kind_of(after) == "LogSoftmax":
            after, normalised = behind_shapes(next_behind(after)), True
        told = LossProfile(kind, _kind_behind(after), normalised)
        if _is_broadcast(node, output):
            yield told._replace(broadcast=True)
        elif kind == "LogSoftmax":  # a cross entropy, also one that is written out
            told = told._replace(kind="CrossEntropy", normalised=True)
            yield told._replace(least=_least(told, node))
        elif kind == "Logsumexp" and told.after == "Softmax":  # as Categorical(logits=…) has it
            yield told._replace(kind="CrossEntropy", normalised=True)
        elif kind in _CROSS_ENTROPIES:
            yield _cross_entropy(_of_logits(told, after), node)
        elif kind == "Log" and (of_logits := _of_logits(told, after)).after in RANGES:
            yield of_logits
        elif kind == "CtcLoss":
            yield told._replace(raw=_is_no_logarithm(saved(node, "log_probs")))
        elif kind in _DISTANCES:
            yield _distance(told, saved(node, "target"), saved(node, "self"))
        elif kind in ("Pow", "Abs") and kind_of(before) == "Sub" and before is not None:
            after = behind_shapes(next_behind(before))
            told = told._replace(kind="difference", after=kind_of(after))
            yield _distance(told, _target(node, before, output), output)
        elif before is not None and _is_divergence(node, before):
            scores = behind_shapes(next_behind(before))
            told = told._replace(kind="KlDiv", after=kind_of(scores))
            yield told._replace(raw=_is_raw(scores, output))


def _of_logits(told: LossProfile, after: Node | None) -> LossProfile:
    """Of the logarithm of a sigmoid or softmax, the cross entropy of what goes into that."""
    kind = {"Sigmoid": f"{_BINARY}WithLogits", "Softmax": "CrossEntropy"}.get(told.after)
    if kind is None or told.kind not in (_BINARY, "Log"):
        return told
    inner, normalised = behind_shapes(next_behind(after)), False
    if kind_of(inner) == "LogSoftmax":
        inner, normalised = behind_shapes(next_behind(inner)), True
    normalised = normalised or kind == "CrossEntropy"
    return told._replace(kind=kind, after=_kind_behind(inner), normalised=normalised)


def _cross_entropy(told: LossProfile, node: Node) -> LossProfile:
    """Also the share of the targets that are no probability, and whether the scores are none."""
    scores, target = saved(node, "self"), saved(node, "target")
    told = told._replace(times_guess=_times_guess(kind_of(node), node))
    if scores is None or target is None or not scores.numel():
        return told
    if "Nll" not in told.kind:
        told = told._replace(outside=float(((target < 0) | (target > 1)).float().mean()))
        bounded = _is_bounded(told) and told.kind.endswith("WithLogits")
        return told._replace(least=math.log1p(math.exp(-1))) if bounded else told
    return told._replace(raw=_is_no_logarithm(scores, 1 if scores.dim() > 1 else 0))


def _is_bounded(told: LossProfile) -> bool:
    """Whether the logits lie between -1 and 1."""
    return told.after in ("Tanh", "Cosine")


def _least(told: LossProfile, node: Any) -> float:
    """The cross entropy of a logit of 1 with all others at -1."""
    result = saved(node, "result")
    if result is None or not result.dim() or not _is_bounded(told):
        return 0.0
    return math.log1p((result.shape[signed(node._saved_dim)] - 1) * math.exp(-2))


def _is_no_logarithm(scores: Tensor | None, dim: int = -1) -> bool:
    """Whether most are no logarithms of probabilities: those add up to 1."""
    if scores is None:
        return False
    return bool((scores.float().logsumexp(dim).abs() > _NO_SUM).float().mean() > 0.5)


def _kind_behind(node: Node | None) -> str:
    """The kind of what makes the scores."""
    kind = kind_of(node)
    if node is not None and kind in ("Mul", "NativeDropout") and left_by_dropout(node, kind):
        return "Dropout"
    return "Cosine" if node is not None and kind == "Mm" and _are_cosines(node) else kind


def _are_cosines(node: Node) -> bool:
    """Whether it multiplies unit vectors with unit vectors, none of which is a bare weight."""
    sides = [(saved(node, "self"), 1), (saved(node, "mat2"), 0)]
    if any(is_weight(n) for n in nodes_behind(node)):
        return False
    real = [(x, dim) for x, dim in sides if x is not None and x.is_floating_point()]
    lengths = [x.float().norm(dim=dim) for x, dim in real]
    return len(lengths) == 2 and all(bool(((n - 1).abs() < _UNIT).all()) for n in lengths)


def _is_divergence(node: Node, before: Node) -> bool:
    """Whether it is ``F.kl_div``: a constant - p · x, or p · (a constant - x), p a distribution."""
    factor = node if kind_of(node) == "Mul" else before
    constants = all(n.next_functions[0][0] is None for n in (node, before) if n.next_functions)
    shares = saved(factor, "self") if constants else None
    if {kind_of(node), kind_of(before)} != {"Sub", "Mul"} or shares is None or not shares.dim():
        return False
    sums = in_float64(shares).sum(-1)
    return shares.shape[-1] > 1 and bool((shares >= 0).all() and ((sums - 1).abs() < _NO_SUM).all())


def _is_raw(scores: Node | None, output: Tensor | None) -> bool:
    """Whether these are no log-probabilities, where that can be told."""
    kind = kind_of(scores)
    if output is None or not output.dim() or kind in ("Softmax", "LogSoftmax"):
        return kind == "Softmax"
    return scores is behind_shapes(output.grad_fn) and _is_no_logarithm(output.detach())


def _is_broadcast(node: Node, output: Tensor | None) -> bool:
    """Whether it compares each of n outputs, one a sample, with n targets: n × n differences."""
    size = len(output) if output is not None and output.dim() else 0
    if output is None or size < 2 or output.numel() != size or kind_of(node) not in _COMPARING:
        return False
    sides = [n for n, _ in node.next_functions]
    one_is_data = len(sides) == 2 and (sides[0] is None) != (sides[1] is None)
    compared = saved(node, "self") if kind_of(node) in _DISTANCES else None
    shape = node._input_metadata[0].shape if compared is None else compared.shape
    data = saved(node, "other")
    data = saved(node, "self") if data is None else data  # what a product takes the output times
    if kind_of(node) == "Mul" and (data is None or data.numel() != size):
        return False
    own = behind_shapes(sides[0] or sides[1]) is behind_shapes(output.grad_fn)
    return one_is_data and own and tuple(shape) == (size, size)


def _target(node: Node, sub: Node, output: Tensor | None) -> Tensor | None:
    """What a written-out difference is taken from, where it is one of the output."""
    difference = saved(node, "self")
    sides = [n for n, _ in sub.next_functions]
    if difference is None or output is None or difference.numel() != output.numel():
        return None
    if len(sides) != 2 or (sides[0] is None) == (sides[1] is None):
        return None
    difference = difference.reshape(output.shape)
    return output.detach() - difference if sides[1] is None else output.detach() + difference


def _distance(told: LossProfile, target: Tensor | None, output: Tensor | None) -> LossProfile:
    if target is None or output is None or not target.numel() or target.requires_grad:
        return told
    target, output = in_float64(target.detach()), in_float64(output.detach())
    low, high = RANGES.get(told.after, (-math.inf, math.inf))
    variance = float(target.var(unbiased=False))
    error = float((output - target).square().mean()) if output.shape == target.shape else math.nan
    slack = 1e-6
    outside = float(((target < low - slack) | (target > high + slack)).double().mean())
    if told.after == "Softmax" and target.dim() > 1:  # its outputs add up to 1
        sums = [(target.sum(dim) - 1).abs() > _NO_SUM for dim in (1, -1)]
        outside = max(outside, min(float(off.double().mean()) for off in sums))
    return told._replace(
        times_guess=error / variance if variance and math.isfinite(error) else None,
        target_rms=float(target.square().mean().sqrt()),
        target_spread=math.sqrt(variance),
        outside=outside,
    )


def _times_guess(kind: str, node: Node) -> float | None:
    """The mean cross entropy ÷ that of a constant guess."""
    scores, target = saved(node, "self"), saved(node, "target")
    if scores is None or target is None or not scores.numel():
        return None
    classes = scores.shape[1 if scores.dim() > 1 else 0] if "Nll" in kind else 2
    ignored = {"ignore_index": signed(node._saved_ignore_index)} if "Nll" in kind else {}  # type: ignore[attr-defined]
    labels = target.float() if target.is_floating_point() else target
    mean = float(_CROSS_ENTROPIES[kind](scores.float(), labels, **ignored))
    return mean / math.log(classes) if classes > 1 and math.isfinite(mean) else None


def tail(root: Node | None) -> Iterator[Node]:
    """The nodes behind the last weights: from the loss to those that read a parameter."""
    stack, seen = [root] if root else [], {root}
    while stack:
        node = stack.pop()
        behind = nodes_behind(node)
        if any(is_weight(n) for n in behind):
            continue
        yield node
        stack += [n for n in behind if n not in seen]
        seen.update(behind)
