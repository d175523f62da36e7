"""What stands in front of torch's engine while a pass is measured, and is gone afterwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch

from gradprobe.measure.derivatives import derivatives

ENGINE = "_engine_run_backward"


def twice() -> None:
    """Take a derivative that has a graph of its own."""
    x = torch.ones(2, requires_grad=True)
    torch.autograd.grad((x**3).sum(), x, create_graph=True)


def test_the_engine_is_back_when_uses_that_overlap_end_as_they_began() -> None:
    engine = vars(torch.autograd)[ENGINE]
    first, second = ExitStack(), ExitStack()
    try:
        with ThreadPoolExecutor(1) as other:
            here = first.enter_context(derivatives())
            there = other.submit(second.enter_context, derivatives()).result()
            twice()
            first.close()
            assert vars(torch.autograd)[ENGINE] is not engine
            other.submit(second.close).result()
        assert here.made
        assert not there.made
        assert vars(torch.autograd)[ENGINE] is engine
    finally:
        vars(torch.autograd)[ENGINE] = engine


def test_a_torch_without_that_engine_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.autograd, ENGINE)
    with derivatives() as noted:
        pass
    assert not noted.made
    assert ENGINE not in vars(torch.autograd)
