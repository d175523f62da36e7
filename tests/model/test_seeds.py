"""Random signs."""

from __future__ import annotations

import torch

from gradprobe.model.seeds import signs


def test_signs_are_plus_and_minus_one_alike() -> None:
    drawn = signs(torch.Size((100, 100)), torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {-1, 1}
    assert abs(int(drawn.sum())) < 4 * 100  # four standard deviations
