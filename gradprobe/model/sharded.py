"""A DTensor, of which each process holds a part → its part, or what all parts say of it.

FSDP2 and tensor-parallel layers hold their weights so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = frozenset((Tensor, nn.Parameter))


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor."""
    return type(tensor) not in _PLAIN and hasattr(tensor, "full_tensor")


def class_of(module: nn.Module) -> type[nn.Module]:
    """The class that a module was made of, in whose place ``fully_shard`` puts one of its own."""
    kind = type(module)
    sharded = [base.__name__ for base in kind.__bases__][:1] == ["FSDPModule"]
    return kind.__bases__[1] if sharded else kind


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself; of a sharded one what all processes hold together."""
    gather: Callable[[], Tensor] = getattr(tensor, "full_tensor", lambda: tensor)
    return gather()


def part_of(tensor: Tensor) -> Tensor:
    """The tensor itself; of a sharded one what this process holds, which may be nothing.

    What the processes have yet to add up, a partial placement, is added up: it has no parts.
    """
    spread: Any = tensor
    if not is_sharded(tensor):
        return tensor
    if any(placement.is_partial() for placement in spread.placements):
        return whole(tensor)
    local: Tensor = spread.to_local()
    return local


def spread_of(tensor: Tensor) -> tuple[Any, ...]:
    """How a sharded tensor is spread: those that are equal here have their parts at one place."""
    spread: Any = tensor
    whole_here = [placement.is_replicate() for placement in spread.placements]
    if any(placement.is_partial() for placement in spread.placements):
        whole_here = [True] * len(whole_here)
    return spread.device_mesh, *whole_here


def of_all_parts(tensor: Tensor, values: Sequence[float]) -> list[list[float]]:
    """``values`` of this process's part of a sharded tensor, and those of each other part."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    mesh, *whole_here = spread_of(tensor)
    places = [Replicate() if here else Shard(0) for here in whole_here]
    local = torch.tensor([values], dtype=torch.float64, device=mesh.device_type)
    parts = DTensor.from_local(local, mesh, places)
    for axis in reversed(range(len(places))):  # one at a time: torch warns of several
        places[axis] = Replicate()
        parts = parts.redistribute(mesh, places)
    every: list[list[float]] = parts.to_local().tolist()
    return every
