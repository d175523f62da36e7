"""A clamp, a grid's points or a ReLU in the graph → the share of it that no gradient passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradprobe.measure.graph import behind_constant, kind_of, saved

# Nodes that pass nothing on beyond their ends, by what they are called.
ENDING = dict.fromkeys(("Clamp", "ClampMin", "ClampMax"), "clamp")
ENDING |= dict.fromkeys(("GridSampler2D", "GridSampler3D"), "grid_sample")


def held_back(node: Any, kind: str) -> float:
    """The share of the elements, or of a grid's points, that get no gradient where they are."""
    if kind == "Relu":
        x = saved(node, "result")
        out = None if x is None else x == 0
    elif ENDING[kind] == "grid_sample":
        x = saved(node, "grid")
        out = None if x is None else (x.abs() > 1).any(-1)
    else:
        x = saved(node, "self")
        low, high = (getattr(node, f"_saved_{end}", None) for end in ("min", "max"))
        out = None if x is None else _beyond(x, low, high)
    return float(out.float().mean()) if out is not None and out.numel() else 0.0


def _beyond(x: Tensor, low: Any, high: Any) -> Tensor:
    """Which elements are outside both bounds, numbers or tensors, of which one may be missing."""
    out = torch.zeros((), dtype=torch.bool, device=x.device)
    out = out if low is None else out | (x < low)
    return out if high is None else out | (x > high)


def below_zero(node: Node | None) -> float:
    """The share of what a clamp gets that is below 0, where one is what a logarithm reads."""
    node = behind_constant(node)
    x = saved(node, "self") if node is not None and kind_of(node) in ("Clamp", "ClampMin") else None
    return float((x < 0).float().mean()) if x is not None and x.numel() else 0.0
