"""The global random states: torch's without what ``torch.manual_seed`` does for idle devices."""

from __future__ import annotations

import random
import sys

import torch


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
