"""Gradients where a whole backward pass adds them into ``.grad``, as FSDP2 does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradprobe.measure import passes
from gradprobe.measure.passes import edge_of, gradients_of


def test_what_lay_in_grad_lies_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """y = a · x², so that ∂y/∂a is x² and ∂y/∂(a · x) is x; ``unused`` is not on the way."""
    a, unused = nn.Parameter(torch.tensor([2.0, 3.0])), nn.Parameter(torch.ones(1))
    x, old = torch.tensor([5.0, 7.0]), torch.tensor([1.0, 1.0])
    a.grad = old
    monkeypatch.setattr(passes, "is_sharded", lambda tensor: True)
    inner = a * x
    found = gradients_of((inner * x).sum(), [a, unused, edge_of(inner)])
    assert found[0] is not None
    assert found[2] is not None
    assert (found[0].tolist(), found[1], found[2].tolist()) == ([25.0, 49.0], None, [5.0, 7.0])
    assert a.grad is old
    assert old.tolist() == [1.0, 1.0]
    assert unused.grad is None
