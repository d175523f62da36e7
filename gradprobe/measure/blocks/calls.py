"""The calls of a module's rows, recorded in one forward pass: each can be run again, alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.measure.profile import call_name
from gradprobe.measure.recorder import Arguments, Recorder
from gradprobe.model.rows import Row
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


def recorded(subject: Subject) -> list[Call]:
    """Each call of a row whose output has its input's shape, in order, from one forward pass.

    A row that is called again has its further calls numbered, ``name (2)`` and so on.
    """
    with _Calls(subject.rows) as recorder, torch.no_grad():
        subject.model(*fresh(subject.args), **fresh(dict(subject.kwargs)))
    return recorder.calls


class _Calls(Recorder):
    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()

    def before(self, row: Row, args: Any, kwargs: Any) -> tuple[Any, Arguments | None]:
        return fresh((args, kwargs)), None  # one copy of what is handed in twice

    def after(self, row: Row, note: Any, output: Any) -> None:
        self.counts[row.name] += 1
        args, kwargs = note
        x = _main_input(note, first_tensor(output))
        if x is not None:
            name = call_name(row.name, self.counts[row.name])
            self.calls.append(Call(name, row.module, x, args, kwargs))


def _main_input(arguments: Arguments, output: Tensor | None) -> Tensor | None:
    """The first floating tensor among the arguments with the shape of ``output``."""
    if output is None or output.dim() < 2:
        return None
    tensors = [t for t in tensors_in(arguments) if t.is_floating_point()]
    return next((t for t in tensors if t.shape == output.shape), None)
