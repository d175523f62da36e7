"""A network built from a spec as a chain of elements, run one at a time.

Rows that are chains themselves are opened, so that each residual block stands for itself: in a
transformer the attention and the feed-forward block, in a ResNet the block and the ReLU behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.measure.blocks.calls import Call
from gradprobe.model.layers import Residual
from gradprobe.model.seeds import derive, reseed
from gradprobe.model.subject import Subject


class Element(NamedTuple):
    """One link of the chain: a residual block, or whatever stands between two."""

    name: str
    row: int  # index of its row
    module: nn.Module
    call: Call | None = None  # how it is run, where that is not with its input alone

    @property
    def residual(self) -> Residual | None:
        return self.module if isinstance(self.module, Residual) else None

    def reseed(self, seed: int) -> None:
        """Set the global random state that the element draws from (dropout)."""
        reseed(derive(seed, f"forward/{self.name}"))

    def run(self, x: Tensor, seed: int) -> Tensor:
        """The output; what it draws is the same each time."""
        self.reseed(seed)
        if self.call is not None:
            return self.call.run(x)
        out: Tensor = self.module(x)
        return out


def rows_of(subject: Subject) -> list[Element]:
    """The chain with each row as one element."""
    return [Element(row.name, index, row.module) for index, row in enumerate(subject.rows)]


def elements_of(subject: Subject) -> list[Element]:
    """The chain, in the order in which it runs."""
    rows = enumerate(subject.rows)
    return [element for i, row in rows for element in _opened(row.name, i, row.module)]


def _opened(name: str, row: int, module: nn.Module) -> Iterator[Element]:
    if type(module) is nn.Sequential:
        for child_name, child in module.named_children():
            yield from _opened(f"{name}.{child_name}", row, child)
    else:
        yield Element(name, row, module)


def trace(elements: list[Element], x: Tensor, seed: int) -> list[Tensor]:
    """The input of each element, and the last output, without a graph."""
    values = [x]
    with torch.no_grad():
        for element in elements:
            values.append(element.run(values[-1].clone(), seed))
    return values


def as_leaf(x: Tensor) -> Tensor:
    """A copy of ``x`` that gradients end in."""
    return x.detach().clone().requires_grad_(x.is_floating_point())
