"""A device that has no float64, as Apple's: what is measured there is taken to the processor."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gradprobe
from gradprobe.measure.take import take_block, take_paths
from gradprobe.model.make import module_subject
from gradprobe.model.tensors import in_float64
from gradprobe.spec.options import ProbeOptions

X, LABELS = torch.randn(16, 6, 8), torch.arange(16) % 4


class Without(TorchDispatchMode):
    """Stands in for such a device: float64 comes from ``in_float64`` alone, and stays apart."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves([args, kwargs]) if isinstance(x, Tensor)]
        given = [x for x in given if x.is_floating_point()]
        wide = [x for x in given if x.dtype is torch.float64]
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        if any(x.dtype is torch.float64 for x in made) and given and not wide:
            assert in_float64.__name__ in callers(sys._getframe()), f"{func} makes float64"
        apart = wide and any(x.dim() for x in given if x.dtype is not torch.float64)
        assert not apart or func is torch.ops.aten.copy_.default, f"{func} of two devices"
        return result


def callers(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2)
        )
        self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rnn(x)[0]
        for block in self.blocks:
            x = block(x)
        head: Tensor = self.head(self.norm(x).mean(1))
        return head


def loss(output: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, LABELS)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Reads()


def test_a_probe_tells_the_same(model: nn.Module) -> None:
    words: Any = {"loss": loss, "blocks": True, "attention": True, "precision": True, "lr": 0.1}
    report = gradprobe.probe(model, X, overfit=True, **words)
    with Without():
        assert gradprobe.probe(model, X, overfit=True, **words) == report


def test_blocks_and_paths_are_taken_apart() -> None:
    torch.manual_seed(0)
    blocks = (nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2))
    subject = module_subject(nn.Sequential(*blocks), X, "projection", ProbeOptions())
    block, paths = take_block(subject), take_paths(subject)
    with Without():
        assert (take_block(subject), take_paths(subject)) == (block, paths)


def test_a_step_is_watched(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Without(), gradprobe.watch(model, deep=True) as watch:
        loss(model(X)).backward()
        optimizer.step()
    [report] = watch.reports
    assert report.verdict is gradprobe.Verdict.HEALTHY
