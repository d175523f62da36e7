"""Seeds derived from (seed, path), so that no layer's draw depends on another's; the generators."""

from __future__ import annotations

import hashlib
import random
import sys

import torch
from torch import Tensor


def derive(seed: int, path: str) -> int:
    """A 63-bit seed for the thing at ``path``, the same on every machine."""
    data = f"{seed}/{path}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) >> 1


def reseed(seed: int) -> None:
    """Seed the generators that a forward pass may draw from (dropout)."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def reseed_all(seed: int) -> None:
    """Python's and NumPy's generators too, for a model that is not a spec's."""
    reseed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        import numpy

        numpy.random.seed(seed % 2**32)


def seed_all(seed: int) -> None:
    """Every stream that a model may draw its weights from, that of an unused GPU too."""
    torch.manual_seed(seed)
    reseed_all(seed)


def generator_states() -> list[Tensor]:
    """Of the generators that a forward pass draws from."""
    states = [torch.default_generator.get_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append(torch.cuda.get_rng_state())
    return states


def set_generator_states(states: list[Tensor]) -> None:
    """Let them go on from there."""
    torch.default_generator.set_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
