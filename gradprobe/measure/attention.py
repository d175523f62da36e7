"""Attention, read off the autograd graph: how sharp it is, and how alike its tokens come out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from gradprobe.measure.again import output_of
from gradprobe.measure.graph import kind_of, saved, signed
from gradprobe.measure.profile import AttentionProfile
from gradprobe.measure.recorder import Recorder
from gradprobe.model.on_demand import Drawn, Listener, heard_by
from gradprobe.model.rows import Row, modules_of
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import first_tensor, in_float64, nodes_behind, tensors_in

ATTENDING = ("Softmax", "SafeSoftmax", "ScaledDotProduct")  # nodes that may be attention
_HEADS = 8  # of one sample, that are looked at
_QUERIES = 512


def attention(subject: Subject) -> dict[str, AttentionProfile]:
    """One forward pass: of each row in which there is attention, by name."""
    modules = modules_of(subject.model)
    with torch.enable_grad(), _Watch(subject.rows) as watch, heard_by(watch, modules):
        output_of(subject)
    return watch.by_name


class _Watch(Recorder, Listener):
    """Reads the nodes that each row adds to the graph."""

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)
        self.ends: list[Node] = []  # of the part that ran last, whose graph is hidden outside
        self.by_name: dict[str, AttentionProfile] = {}
        self.seen: set[Node] = set()

    def made(self, drawn: Drawn, outputs: list[Any]) -> None:
        self.ends = [y.grad_fn for y in tensors_in(outputs) if y.grad_fn is not None]

    def after(self, row: Row, note: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is None or tensor.grad_fn is None:
            return
        nodes, self.ends = self._new([tensor.grad_fn, *self.ends]), []
        entropies = [entropy_of(node) for node in nodes]
        present = [entropy for entropy in entropies if entropy is not None]
        if present:
            mean = math.fsum(present) / len(present)
            self.by_name.setdefault(row.name, AttentionProfile(mean, similarity(tensor)))

    def _new(self, roots: list[Node]) -> list[Node]:
        new, stack = [], roots
        while stack:
            node = stack.pop()
            if node not in self.seen:
                self.seen.add(node)
                new.append(node)
                stack += nodes_behind(node)
        return new


def entropy_of(node: Node, heads: int = _HEADS, queries: int = _QUERIES) -> float | None:
    """The entropy of a query's weights ÷ that of equal ones, the mean over queries: 0 to 1.

    Of the first sample, and of as many heads and last queries. A query that may look at one key
    alone, as the first behind a causal mask, does not count. ``None``: the node is no attention.
    """
    kind = kind_of(node)
    if kind in ATTENDING[:-1]:
        weights = saved(node, "result")
        if weights is None or weights.dim() < 3 or min(weights.shape[-2:]) < 2:
            return None
        last = signed(node._saved_dim) in (-1, weights.dim() - 1)  # type: ignore[attr-defined]
        return _entropy(weights.flatten(0, -3)[:heads, -queries:]) if last else None
    if not kind.startswith(ATTENDING[-1]):
        return None
    weights = _weights_of(node, heads, queries)
    return None if weights is None else _entropy(weights)


def _weights_of(node: Any, heads: int, queries: int) -> Tensor | None:
    """What a fused attention's softmax gives: (heads, queries, keys)."""
    query, key, mask = (saved(node, name) for name in ("query", "key", "attn_mask"))
    if query is None or key is None or query.dim() != 4 or min(query.shape[2], key.shape[2]) < 2:
        return None
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)[0, :heads]
    scale = getattr(node, "_saved_scale", None) or 1 / math.sqrt(query.shape[-1])
    scores = query[0, :heads].float() @ key.float().transpose(1, 2) * scale
    if mask is not None:
        mask = mask.expand(len(query), query.shape[1], *scores.shape[1:])[0, :heads]
        scores = scores + (mask if mask.is_floating_point() else torch.where(mask, 0.0, -math.inf))
    if getattr(node, "_saved_is_causal", False):
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
    return scores.softmax(-1)[:, -queries:]


def _entropy(weights: Tensor) -> float | None:
    weights = in_float64(weights.detach())
    entropy = torch.special.entr(weights).sum(-1)
    # The keys that some head looks at: of those that none does, a mask may be the reason.
    keys = (weights > 0).sum(-1).amax(0).double()
    keys[1:].clamp_(min=2)  # the first query alone may have one key; of others the rest underflowed
    counts = (keys > 1).expand_as(entropy)
    share = (entropy / keys.log())[counts]
    return float(share.mean()) if share.numel() else None


def similarity(tensor: Tensor) -> float | None:
    """The cosine of two tokens of one sample, the mean over all pairs; of (batch, tokens, width).

    1 where all tokens have become alike (Dong et al. 2021, arXiv 2103.03404), -1 / (tokens - 1) at
    the least.
    """
    if tensor.dim() != 3 or tensor.shape[1] < 2:
        return None
    tokens = tensor.shape[1]
    unit = nn.functional.normalize(in_float64(tensor.detach()), dim=-1)
    pairs = unit.sum(1).square().sum(-1) - unit.square().sum((1, 2))
    return float(pairs.mean()) / (tokens * (tokens - 1))
