"""torch's global random state, seeded without what ``torch.manual_seed`` does for idle devices."""

from __future__ import annotations

import torch


def reseed(seed: int) -> None:
    """Seed the generators that a forward pass may draw from (dropout)."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
