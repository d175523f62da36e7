"""How much of what arrives at a row's output the row hands straight back to its input."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from gradprobe.measure.blocks.chain import as_leaf
from gradprobe.measure.recorder import Arguments, Recorder
from gradprobe.model.rows import Row
from gradprobe.model.seeds import derive
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import first_tensor, with_tensor


class _Crossing(NamedTuple):
    """One row's way from its input to a random direction of its output."""

    x: Tensor
    v: Tensor  # random signs × |y|
    along: Tensor  # vᵀy

    def highway(self) -> float:
        back = torch.autograd.grad(self.along, self.x, retain_graph=True, allow_unused=True)[0]
        energy = float(self.v.double().square().sum())
        if back is None or not energy:
            return 0.0
        return float((back.double() * self.v).sum()) / energy


class Crossings(Recorder):
    """Notes how each row is crossed that keeps its input's shape, by the row's name.

    A checkpointed row runs again in the backward pass, and the same has to happen there.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject.rows)
        self.seed = subject.seed
        self.by_name: dict[str, _Crossing] = {}

    def before(self, row: Row, args: Any, kwargs: Any) -> tuple[Any, Arguments | None]:
        x = first_tensor([args, kwargs])
        if x is None or is_functorch_wrapped_tensor(x):
            return None, None
        leaf = x if x.requires_grad else as_leaf(x)
        # A copy, since the row may overwrite what it gets.
        return leaf, with_tensor((args, kwargs), x, leaf.clone())

    def after(self, row: Row, note: Tensor | None, output: Any) -> None:
        x, y = note, first_tensor(output)
        if x is None or y is None or x.shape != y.shape:
            return
        if not (y.requires_grad and y.numel()):
            return
        generator = torch.Generator().manual_seed(derive(self.seed, f"highway/{row.name}"))
        signs = (torch.randint(2, x.shape, generator=generator) * 2 - 1).to(x)
        # At most 1, so that no square overflows.
        size = y.detach().abs()
        v = signs * (size / size.max().clamp_min(torch.finfo(size.dtype).tiny))
        self.by_name.setdefault(row.name, _Crossing(x, v, (y * v).sum()))
