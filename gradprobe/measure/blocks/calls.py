"""The calls of a module's rows, recorded in one forward pass: each can be run again, alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.measure.profile import call_name
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
    found: list[Call] = []
    pending: list[tuple[Sequence[Any], Mapping[str, Any]]] = []
    counts: dict[str, int] = {}

    def enter(module: nn.Module, given: Any, named: Any) -> None:
        pending.append(fresh((given, dict(named))))  # one copy of what is given twice

    def leave(row: Row) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            counts[row.name] = counts.get(row.name, 0) + 1
            name = call_name(row.name, counts[row.name])
            positional, named = pending.pop()
            x = main_input(positional, named, first_tensor(output))
            if x is not None:
                found.append(Call(name, module, x, positional, named))

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for row in subject.rows:
            before = row.module.register_forward_pre_hook(enter, with_kwargs=True)
            hooks.callback(before.remove)
            hooks.callback(row.module.register_forward_hook(leave(row)).remove)
        subject.model(*fresh(subject.args), **fresh(dict(subject.kwargs)))
    return found


def main_input(
    args: Sequence[Any], kwargs: Mapping[str, Any], output: Tensor | None
) -> Tensor | None:
    """The first floating tensor among the arguments with the shape of ``output``."""
    if output is None or output.dim() < 2:
        return None
    tensors = tensors_in([args, kwargs])
    return next((t for t in tensors if t.is_floating_point() and t.shape == output.shape), None)
