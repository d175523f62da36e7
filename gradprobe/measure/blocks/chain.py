"""What can be run again alone: the elements of a spec's chain, the calls of any module's rows.

Rows that are chains themselves are opened, so that each residual block stands for itself: in a
transformer the attention and the feed-forward block, in a ResNet the block and the ReLU behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.measure.recorder import Arguments, Recorder
from gradprobe.model.layers import Residual
from gradprobe.model.on_demand import held
from gradprobe.model.rows import Row
from gradprobe.model.seeds import derive, reseed
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import first_tensor, fresh, tensors_in, with_tensor


class Call(NamedTuple):
    """One call of one row: ``run`` is what it makes of its main input, all else held fixed.

    The main input is the first floating tensor among its arguments with the shape of its output.
    """

    name: str
    module: nn.Module
    x: Tensor
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    @property
    def alone(self) -> bool:
        """Whether there is no other tensor among its arguments, so that batches can be stacked."""
        return all(t is self.x for t in tensors_in([self.args, self.kwargs]))

    def run(self, x: Tensor) -> Tensor:
        """The main output for another main input of the same shape."""
        args, kwargs = with_tensor((self.args, self.kwargs), self.x, x)
        output = first_tensor(self.module(*args, **kwargs))
        assert output is not None
        return output


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
            with held(element.module):
                values.append(element.run(values[-1].clone(), seed))
    return values


def as_leaf(x: Tensor) -> Tensor:
    """A copy of ``x`` that gradients end in."""
    return x.detach().clone().requires_grad_(x.is_floating_point())


def pulled(out: Tensor, leaf: Tensor, v: Tensor) -> Tensor:
    """Jᵀv with J = ∂out/∂leaf, whose graph stays; zero where no path leads there."""
    if not out.requires_grad:
        return torch.zeros_like(leaf)
    (back,) = torch.autograd.grad(out, leaf, v, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if back is None else back


def recorded(subject: Subject, square: bool = True) -> list[Call]:
    """Each call of a row whose output has its input's shape, in order, from one forward pass.

    A row that is called again has its further calls numbered, ``name (2)`` and so on.

    Args:
        square: false where calls that change the shape count too; their main input is the first.
    """
    with _Calls(subject.rows, square) as recorder, torch.no_grad():
        subject.model(*fresh(subject.args), **fresh(dict(subject.kwargs)))
    return recorder.calls


class _Calls(Recorder):
    def __init__(self, rows: Iterable[Row], square: bool) -> None:
        super().__init__(rows)
        self.square = square
        self.calls: list[Call] = []

    def before(self, row: Row, args: Any, kwargs: Any) -> tuple[Any, Arguments | None]:
        return fresh((args, kwargs)), None  # one copy of what is handed in twice

    def after(self, row: Row, note: Any, output: Any) -> None:
        y = first_tensor(output)
        floating = [t for t in tensors_in(note) if t.is_floating_point()]
        x = next((t for t in floating if y is not None and t.shape == y.shape), None)
        if x is None and floating and y is not None and not self.square:
            x = floating[0]
        if x is not None and x.dim() > 1:
            self.calls.append(Call(self.call_name(row), row.module, x, *note))
