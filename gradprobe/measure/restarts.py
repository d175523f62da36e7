"""Recurrent layers that are called step by step and begin anew each time."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.measure.again import output_of
from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.recorder import Recorder
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.streamed import Streamed
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import tensors_in

_STEPS = 3  # as many calls may be steps of a loop
_Recurrent = (nn.RNNCellBase, nn.RNNBase)


class _Call(NamedTuple):
    read: Tensor | None  # the one step that it reads, if it is one
    anew: bool  # whether its state is left out, or zeros that the model makes itself


def restarted(subject: Subject) -> tuple[str, int] | None:
    """The recurrent layer that reads several steps, one in each call, always from a state of zeros.

    With the number of its calls. Another state that is the same each time may be data, as of a
    graph's nodes; so may one that the model is given, as of agents at the first step of a game.
    One more pass, where there is a recurrent layer.
    """
    named = subject.model.named_modules()
    cells = {name: module for name, module in named if isinstance(module, _Recurrent)}
    if not cells or isinstance(subject.model, Streamed):
        return None
    calls: dict[str, list[_Call]] = {name: [] for name in cells}
    given: set[int] = set()  # where what the model is called with lies in memory
    with undisturbed(subject.model), keeping_graph(), Recorder(()) as recorder:
        recorder.before_calls(subject.model, partial(_remember, given))
        for name, cell in cells.items():
            recorder.before_calls(cell, partial(_note, calls[name], given))
        output_of(subject)
    return next(((name, len(c)) for name, c in calls.items() if _begin_anew(c)), None)


def _remember(given: set[int], model: nn.Module, *arguments: Any) -> None:
    given.update(map(_place, tensors_in(arguments)))


def _note(calls: list[_Call], given: set[int], module: Any, args: Any, kwargs: Any) -> None:
    if not torch.is_grad_enabled():
        return
    named = dict(zip(("input", "hx"), args, strict=False)) | kwargs
    read, state = named["input"], list(tensors_in(named.get("hx")))
    if isinstance(module, nn.RNNBase):
        batched = isinstance(read, Tensor) and read.dim() == 3
        one = isinstance(read, Tensor) and read.shape[int(batched and module.batch_first)] == 1
        read = read if one else None
    anew = not any(s.grad_fn is not None or _place(s) in given or bool(s.any()) for s in state)
    calls.append(_Call(None if read is None else read.detach().clone(), anew))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _begin_anew(calls: list[_Call]) -> bool:
    """Whether all are single steps of something that changes, from a state of zeros."""
    reads = [call.read for call in calls if call.read is not None and call.anew]
    if len(calls) < _STEPS or len(reads) < len(calls):
        return False
    return not all(torch.equal(reads[0], read) for read in reads)
