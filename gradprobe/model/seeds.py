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


def _generators() -> list[torch.Generator]:
    """Those that a forward pass may draw from (dropout): of the processor and of every device."""
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators += torch.cuda.default_generators
    if torch.backends.mps.is_available():
        generators.append(torch.mps._get_default_mps_generator())
    return generators


def signs(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """±1 at random, as integers on the processor whatever torch's default device is."""
    return torch.randint(2, shape, generator=generator, device="cpu") * 2 - 1


def reseed(seed: int) -> None:
    """Seed the generators that a forward pass may draw from (dropout)."""
    for generator in _generators():
        generator.manual_seed(seed)


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
    return [generator.get_state() for generator in _generators()]


def set_generator_states(states: list[Tensor]) -> None:
    """Let them go on from there."""
    for generator, state in zip(_generators(), states, strict=False):
        generator.set_state(state)
