"""Reentrant checkpointing, which refuses ``torch.autograd.grad``, run as the other kind is.

A reentrant checkpoint differs in one thing: where no argument requires a gradient, neither does
what it puts out, and the parameters inside get none. That stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import checkpoint as torchs


@contextmanager
def without_reentrant() -> Iterator[list[bool]]:
    """Meanwhile each reentrant checkpoint runs as one that is not.

    Yields whether a gradient got through, of each that ran; a list that grows.
    """
    calls: list[bool] = []
    outer = vars(torchs.CheckpointFunction).get("apply")  # of an outer call; else it is inherited

    def apply(run: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        passes = any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        calls.append(passes)
        with torch.set_grad_enabled(passes and torch.is_grad_enabled()):
            return torchs.checkpoint(run, *args, use_reentrant=False, preserve_rng_state=preserve)

    torchs.CheckpointFunction.apply = apply  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        del torchs.CheckpointFunction.apply
        if outer:
            torchs.CheckpointFunction.apply = outer  # type: ignore[method-assign]


@contextmanager
def keeping_graph() -> Iterator[None]:
    """Meanwhile what runs has a graph that can be asked, whatever the caller's mode is."""
    with torch.inference_mode(False), torch.enable_grad(), without_reentrant():
        yield
