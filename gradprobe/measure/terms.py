"""A loss that is a sum → how the gradient of its comparison with a target stands to the rest."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradprobe.measure.graph import is_weight, kind_of, next_behind, saved
from gradprobe.measure.losses import tail
from gradprobe.measure.norms import norms
from gradprobe.measure.passes import gradients_of
from gradprobe.model.tensors import nodes_behind, walk

# What hands each of its inputs a multiple of the gradient; a product only beside a constant.
_LINEAR = frozenset("Add Sub Rsub Neg Mul Div Mean Sum Stack Cat View UnsafeView Squeeze".split())
_PRODUCTS = frozenset(("Mul", "Div"))


def times_compared(loss: Tensor, parameters: Sequence[Tensor]) -> float | None:
    """‖gradient of the other terms‖ ÷ ‖gradient of those that compare with a target‖.

    ``None`` where the loss has no terms of both kinds, or no gradient of the second, or where the
    weight of one of the second is learnt as well. Two backward passes; the graph stays.
    """
    root = loss.grad_fn
    shared: list[Node] = []
    if root is None or kind_of(root) not in _LINEAR:
        return None
    list(walk([root], shared))
    terms = _terms(root, set(shared))
    compared = [term for term in terms if _is_compared(term)]
    others = [term for term in terms if term not in compared]
    if not compared or not others or any(_is_product(term) for term in compared):
        return None
    own, rest = (_length(loss, parameters, without) for without in (others, compared))
    return rest / own if own and math.isfinite(rest / own) else None


def _terms(node: Node, shared: Collection[Node]) -> list[Node]:
    """What the gradient at ``node`` is handed to, each reached in one way alone."""
    behind = nodes_behind(node)
    apart = bool(behind) and not any(n in shared or is_weight(n) for n in behind)
    if _is_product(node) or _has_factors(node) or not apart or kind_of(node) not in _LINEAR:
        return [node]
    return [term for n in behind for term in _terms(n, shared)]


def _is_product(node: Node) -> bool:
    """Whether it multiplies, or divides, two that both get a gradient."""
    return kind_of(node) in _PRODUCTS and len(nodes_behind(node)) > 1


def _has_factors(node: Node) -> bool:
    """Whether it multiplies by data: soft labels, what each action was worth, a mask."""
    sides = (saved(node, "other"), saved(node, "self")) if kind_of(node) == "Mul" else ()
    numbers = any(factor is not None and factor.numel() > 1 for factor in sides)
    return numbers and len(nodes_behind(node)) == 1


def _is_compared(term: Node) -> bool:
    """Whether something in it is a loss of torch's, the power of a difference, or a product, with
    data."""
    return any(_has_target(node) or _is_power(node) or _has_factors(node) for node in tail(term))


def _has_target(node: Node) -> bool:
    targets = (saved(node, "target"), saved(node, "targets"))
    return len(nodes_behind(node)) == 1 and any(target is not None for target in targets)


def _is_power(node: Node) -> bool:
    before = next_behind(node) if kind_of(node) in ("Pow", "Abs") else None
    return before is not None and kind_of(before) == "Sub" and len(nodes_behind(before)) == 1


def _length(loss: Tensor, parameters: Sequence[Tensor], without: Sequence[Node]) -> float:
    """The norm of the gradient without that of some terms."""
    with ExitStack() as hooks:
        for node in without:
            hook = node.register_prehook(lambda arriving: tuple(map(torch.zeros_like, arriving)))
            hooks.callback(hook.remove)
        gradients = gradients_of(loss, parameters, retain=True)
    return math.hypot(*norms([g for g in gradients if g is not None and not g.is_sparse]))
