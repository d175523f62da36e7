"""A tensor as ``--input`` describes it → its numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from gradprobe.model.seeds import derive
from gradprobe.spec.network import TensorSpec


def draw(spec: TensorSpec, index: int, seed: int) -> Tensor:
    """The first is drawn as a spec's input is, so that the same network gets the same batch."""
    path = f"input/{index}" if index else "input"
    generator = torch.Generator().manual_seed(derive(seed, path))
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point:
        return torch.randn(spec.shape, generator=generator, device="cpu").to(dtype)
    return torch.randint(spec.high or 2, spec.shape, generator=generator, device="cpu").to(dtype)
