"""Leaving no trace: buffers, modes and the global random states are restored."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from gradprobe.model.rows import modules_of
from gradprobe.model.subject import Subject

_SMALL_WORK = 200_000_000  # multiplications of a forward pass


@contextmanager
def undisturbed(model: nn.Module, modules: list[nn.Module] | None = None) -> Iterator[None]:
    """Restore buffers, modes and the global random states, whatever happens inside."""
    modules = modules or modules_of(model)
    training = [module.training for module in modules]
    buffers = [dict(module._buffers) if module._buffers else None for module in modules]
    copies = [pair for module in modules for pair in _copies(module)]
    with ExitStack() as stack:
        stack.callback(_restore, modules, training, buffers, copies)
        stack.callback(torch.default_generator.set_state, torch.default_generator.get_state())
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            device = torch.cuda.current_device()
            stack.callback(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device)
        stack.callback(random.setstate, random.getstate())
        if "numpy" in sys.modules:
            import numpy

            stack.callback(numpy.random.set_state, numpy.random.get_state())
        yield


def _copies(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The tensors that a forward pass may change in place, each with a copy."""
    changing = [buffer for buffer in module._buffers.values() if buffer is not None]
    if module.__dict__.get("max_norm") is not None:  # Embedding renormalises its weight in place
        changing += [p for p in module._parameters.values() if p is not None]
    return [(tensor, tensor.detach().clone()) for tensor in changing]


def _restore(
    modules: list[nn.Module],
    training: list[bool],
    buffers: list[dict[str, Tensor | None] | None],
    copies: list[tuple[Tensor, Tensor]],
) -> None:
    for module, mode, before in zip(modules, training, buffers, strict=True):
        if module.training is not mode:
            module.training = mode
        if module._buffers or before:
            module._buffers.clear()
            module._buffers.update(before or {})
    with torch.no_grad():
        for tensor, copy in copies:
            # Untouched tensors are not written: a write would count as a change.
            if not torch.equal(tensor, copy):
                tensor.copy_(copy)


@contextmanager
def enough_threads(subject: Subject) -> Iterator[None]:
    """One thread for a small network: on a busy machine, waiting for a second takes longer."""
    threads = torch.get_num_threads()
    if subject.work is not None and subject.work < _SMALL_WORK:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
