"""Leaving no trace: a model and the global random states are as they were."""

from __future__ import annotations

import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from itertools import islice
from operator import is_
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import mha

from gradprobe.model.build import Network
from gradprobe.model.rows import modules_of
from gradprobe.model.seeds import generator_states, set_generator_states
from gradprobe.model.sharded import part_of
from gradprobe.model.subject import Subject

_SMALL_WORK = 200_000_000  # multiplications of a forward pass
_COLLECTIONS = (dict, OrderedDict, defaultdict, Counter, list, set, deque)
_TORCHS = frozenset(vars(nn.Module()))  # attributes, whose collections hold no others
_DEPTH, _WIDTH = 3, 1000  # of collections in collections
_ALONE = 2  # counts of a storage that one tensor has: its own, and the one of who asks


@contextmanager
def undisturbed(model: nn.Module, modules: list[nn.Module] | None = None) -> Iterator[None]:
    """Restore the model and the global random states, whatever happens inside.

    A forward may write to anything of its own: weights, buffers, gradients, ``requires_grad``,
    modes, hooks, submodules and attributes. The layers of a spec write to their buffers alone.
    """
    modules = modules or modules_of(model)
    own_code = not isinstance(model, Network)
    attributes = [_Attributes(m, own_code) for m in modules if own_code or m._buffers]
    tensors = {id(t): t for module in modules for t in _changing(module, own_code)}
    with torch.inference_mode(False):  # a copy made in it could not be trained
        values = [_Values(tensor) for tensor in tensors.values()]
    with ExitStack() as stack:
        stack.callback(_restore, [*attributes, *values])
        stack.callback(set_generator_states, generator_states())
        stack.callback(random.setstate, random.getstate())
        if "numpy" in sys.modules:
            import numpy

            stack.callback(numpy.random.set_state, numpy.random.get_state())
        yield


class _Attributes:
    """What a module holds: its attributes, and what is in those that are collections."""

    def __init__(self, module: nn.Module, own_code: bool) -> None:
        self.module = module
        names = vars(module) if own_code else ("training", "_buffers")
        self.values = {name: vars(module)[name] for name in names if name in vars(module)}
        self.complete = own_code
        torchs = [self.values[n] for n in _TORCHS if n in self.values]
        own = [value for name, value in self.values.items() if name not in _TORCHS]
        held = [c for c in torchs if type(c) in _COLLECTIONS and (c or own_code)]
        self.inside = [(c, c.copy()) for c in (*held, *_collections(own))]
        self.draws = [(g, g.get_state()) for g in own if isinstance(g, torch.Generator)]

    def restore(self) -> None:
        for value, before in self.inside:
            if not _same(value, before):
                value.clear()
                value.extend(before) if isinstance(value, (list, deque)) else value.update(before)
        for generator, state in self.draws:
            generator.set_state(state)
        now = vars(self.module)
        if self.complete and now.keys() != self.values.keys():
            now.clear()
        now.update(self.values)


class _Values:
    """What a tensor holds: its numbers, and the gradient that a backward pass left with it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.numbers = _numbers(tensor)
        self.requires_grad, self.is_leaf = tensor.requires_grad, tensor.is_leaf
        self.grad = tensor.grad if tensor.is_leaf else None
        self.grad_numbers = None if self.grad is None else _numbers(self.grad)

    def restore(self) -> None:
        tensor = self.tensor
        if self.is_leaf and not tensor.is_leaf and not tensor._is_view():
            tensor.detach_()  # a pass with inputs that require a gradient has written to it
        if tensor.is_leaf and tensor.requires_grad is not self.requires_grad:
            tensor.requires_grad_(self.requires_grad)
        if tensor.is_leaf and tensor.grad is not self.grad:
            tensor.grad = self.grad
        self.numbers.restore()
        if self.grad_numbers is not None:
            self.grad_numbers.restore()


class _Lent:
    """A tensor's numbers without a copy of them: torch makes one where something writes to them.

    Until then both share their memory. What a write leaves with the copy is the old memory, which
    the tensor gets back. A write past torch, into an array that shared it before, is not seen.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.storage = _storage(tensor)
        self.lent_before = _is_lent(tensor)  # by a caller, who still needs it
        self.copy: Tensor | None = torch._lazy_clone(tensor.detach())

    def restore(self) -> None:
        tensor, copy, self.copy = self.tensor, self.copy, None
        assert copy is not None
        layout = (copy.shape, copy.stride(), copy.storage_offset())
        now = (tensor.shape, tensor.stride(), tensor.storage_offset())
        if now != layout or _storage(tensor) != self.storage or not _is_lent(tensor):
            tensor.data = copy
        del copy
        if not self.lent_before:
            tensor.data_ptr()  # the last who holds lent memory owns it from then on


class _Copied:
    """A tensor's numbers, copied: others may look at its memory, which it goes on sharing."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.data = tensor.detach()  # its storage, which ``tensor.data = …`` takes away
        self.copy = self.data.clone()

    def restore(self) -> None:
        tensor, before = self.tensor, self.data
        if tensor.layout is not torch.strided or tensor.is_meta:
            return  # torch compares no sparse tensors, and on meta there are no numbers
        if (tensor.data_ptr(), tensor.shape) != (before.data_ptr(), before.shape):
            tensor.data = before
        # Untouched tensors are not written: a write would count as a change.
        if not torch.equal(part_of(tensor), part_of(self.copy)):  # without other processes
            tensor.data.copy_(self.copy)  # past the counter of changes, which an optimizer may read


def _numbers(tensor: Tensor) -> _Lent | _Copied:
    plain = type(tensor) in (Tensor, nn.Parameter) and type(tensor.detach()) is Tensor
    if plain and tensor.device.type == "cpu" and tensor.layout is torch.strided:
        with suppress(RuntimeError, NotImplementedError):  # memory that is mapped, or an array's
            if torch._C._storage_Use_Count(_storage(tensor)) == _ALONE:
                return _Lent(tensor)
    return _Copied(tensor)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _is_lent(tensor: Tensor) -> bool:
    return bool(torch._C._is_cow_tensor(tensor))  # type: ignore[attr-defined]


def _changing(module: nn.Module, own_code: bool) -> Iterator[Tensor]:
    """The tensors of a module that its forward pass may change in place."""
    yield from (buffer for buffer in module._buffers.values() if buffer is not None)
    # Embedding renormalises its weight in place.
    if own_code or module.__dict__.get("max_norm") is not None:
        yield from (p for p in module._parameters.values() if p is not None)
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))


def _collections(values: Iterable[Any], depth: int = 0) -> Iterator[Any]:
    """Those among ``values``, and those in them, as far as a model keeps its records."""
    for value in values:
        if type(value) in _COLLECTIONS:
            yield value
            if value and depth < _DEPTH:
                inside = value.values() if isinstance(value, dict) else value
                yield from _collections(islice(inside, _WIDTH), depth + 1)


def _same(value: Any, before: Any) -> bool:
    """Whether a collection holds the very same things in the same order."""
    if isinstance(value, dict):
        return list(value) == list(before) and all(map(is_, value.values(), before.values()))
    if isinstance(value, set):
        return bool(value == before)
    return len(value) == len(before) and all(map(is_, value, before))


def _restore(states: list[_Attributes | _Values]) -> None:
    with torch.no_grad():
        for state in states:
            state.restore()


_MEASURING = RLock()  # random states, warnings, torch's functions: the process has one of each


@contextmanager
def alone(subject: Subject) -> Iterator[None]:
    """Meanwhile no other thread measures, nothing is compiled, and attention takes no other way.

    A loss with a state of its own is as it was afterwards.
    A small network has one thread: on a busy machine, waiting for a second one takes longer.
    Autocast's copies of weights are of before a step, and may be of a pass without a graph.
    """
    with _MEASURING, eager(), ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        if subject.work is not None and subject.work < _SMALL_WORK:
            torch.set_num_threads(1)
        stack.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
        torch.set_autocast_cache_enabled(False)
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        if subject.criterion is not None:
            stack.enter_context(undisturbed(subject.criterion))
        yield


def eager() -> AbstractContextManager[object]:
    """Compiled code runs as it was written: to trace the hooks takes seconds, and compiles again.

    What is compiled has imported torch's compiler, which takes long.
    """
    compiles = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiles else nullcontext()
