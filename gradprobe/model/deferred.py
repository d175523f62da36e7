"""What builds a model → the model without its large tensors, each of which can be had later.

While it is built, what happens to a large tensor is noted, and happens on the meta device. Random
numbers are drawn all the same, and dropped, so that every later draw is what it would have been.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from gradprobe.model.rows import modules_of

_SMALL = 1 << 12  # elements of a tensor that is made at once
_IS_META, _DEVICE = Tensor.is_meta.__get__, Tensor.device.__get__  # type: ignore[attr-defined]
_META = torch.device("meta")
_BY_VALUE = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class _Ref(NamedTuple):
    """A tensor that has no numbers yet, by its memory and how it lies there."""

    memory: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


class _Step(NamedTuple):
    """An operation that made memory or wrote to it."""

    function: Callable[..., Any]
    args: Sequence[Any]  # with a ``_Ref`` for each tensor without numbers
    kwargs: Mapping[str, Any]
    results: list[_Ref]
    state: Tensor | None  # of the generator that it draws from


class _AsIfThere(TorchFunctionMode):
    """Inside ``with`` tensors on the meta device say that they are on the CPU.

    torch's own initialisations leave those on the meta device alone.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function == _IS_META:
            return False
        return torch.device("cpu") if result == _META and function == _DEVICE else result


class Deferred(TorchDispatchMode):
    """Inside ``with`` large tensors get no numbers; ``fill`` gives them theirs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._as_if = _AsIfThere()
        self._steps: list[_Step] = []
        self._writers: defaultdict[int, list[int]] = defaultdict(list)  # by memory, of the steps
        self._memories: dict[int, Any] = {}  # which are held, so that no number is used again

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler for that

    def __enter__(self) -> Any:
        self._as_if.__enter__()  # type: ignore[no-untyped-call]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._as_if.__exit__(*exception)  # type: ignore[no-untyped-call]

    def fill(self, module: nn.Module) -> None:
        """Give all tensors inside of a module the numbers that they would have had."""
        for inside in modules_of(module):
            for place in (inside._parameters, inside._buffers, vars(inside)):
                for name, tensor in list(place.items()):
                    if isinstance(tensor, Tensor) and tensor.is_meta:
                        setattr(inside, name, self._full(tensor))

    def _full(self, tensor: Tensor) -> Tensor:
        numbers = self._numbers(self._ref(tensor))
        full = Tensor._make_subclass(type(tensor), numbers, tensor.requires_grad)
        vars(full).update(vars(tensor))
        if weakref.getweakrefcount(tensor):  # of an LSTM's
            return full
        torch.utils.swap_tensors(tensor, full)  # type: ignore[no-untyped-call]
        return tensor

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        about = function._schema.arguments
        if not tensors and any(argument.name == "device" for argument in about):
            outline = function(*args, **{**kwargs, "device": "meta"})
            if not isinstance(outline, Tensor) or outline.numel() <= _SMALL:
                return function(*args, **kwargs)
            self._note(function, args, kwargs, outline)
            return outline
        if not any(x.is_meta for x in tensors):
            return function(*args, **kwargs)
        named = {a.name: x for a, x in zip(about, args, strict=False)} | kwargs
        written = [named.get(a.name) for a in about if a.alias_info and a.alias_info.is_write]
        if _BY_VALUE & set(function.tags) or any(_has_numbers(x) for x in tree_leaves(written)):
            return function(*self._real(args), **self._real(kwargs))
        on_meta = kwargs
        if (device := kwargs.get("device")) is not None:
            on_meta = {**kwargs, "device": "meta"}
            kwargs = {**kwargs, "device": "cpu" if device == _META else device}  # torch's own
        in_place = function._schema.name.endswith("_")
        if in_place and torch.Tag.inplace_view not in function.tags:
            result = args[0]
        else:
            result = function(*tree_map(_outline, args), **tree_map(_outline, on_meta))
        self._note(function, args, kwargs, result)
        return result

    def _note(self, function: Any, args: Any, kwargs: Any, result: Any) -> None:
        results = [self._ref(x) for x in tree_leaves(result) if isinstance(x, Tensor)]
        made = [ref.memory for ref in results if ref.memory not in self._memories]
        if not made and not function._schema.is_mutable:
            return  # a view
        for x in tree_leaves((args, kwargs, result)):
            if isinstance(x, Tensor) and x.is_meta:
                self._memories[x.untyped_storage()._cdata] = x.untyped_storage()
        refs, named = tree_map(self._noted, args), tree_map(self._noted, kwargs)
        state = None
        if torch.Tag.nondeterministic_seeded in function.tags:
            state = _generator(kwargs).get_state()
            function(*_mapped(_room, refs), **_mapped(_room, named))
        about = zip(function._schema.arguments, refs, strict=False)
        written = [x for a, x in about if a.alias_info and a.alias_info.is_write]
        written += [named[a.name] for a in function._schema.arguments if a.is_out]
        changed = [x.memory for x in _refs_in(written)]
        for memory in dict.fromkeys(made + changed):
            self._writers[memory].append(len(self._steps))
        self._steps.append(_Step(function, refs, named, results, state))

    def _noted(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return self._ref(value) if value.is_meta else value.detach().clone()

    def _ref(self, tensor: Tensor) -> _Ref:
        memory = tensor.untyped_storage()._cdata
        lies = (tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))
        return _Ref(memory, *lies, tensor.dtype)

    def _real(self, values: Any) -> Any:
        def real(x: Any) -> Any:
            without = isinstance(x, Tensor) and x.is_meta
            return self._numbers(self._ref(x)) if without else x

        return tree_map(real, values)

    def _numbers(self, ref: _Ref) -> Tensor:
        """The tensor, by all steps that it depends on, once more."""
        memories: dict[int, Any] = {}

        def given(value: Any) -> Any:
            if isinstance(value, _Ref):
                return _lying(memories[value.memory], value)
            return value.clone() if isinstance(value, Tensor) else value

        for index in self._needed(ref.memory):
            step = self._steps[index]
            args, kwargs = _mapped(given, step.args), _mapped(given, step.kwargs)
            generator = _generator(kwargs)
            before = generator.get_state()
            if step.state is not None:
                generator.set_state(step.state)
            with torch.no_grad():
                result = step.function(*args, **kwargs)
            generator.set_state(before)
            made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
            for own, tensor in zip(step.results, made, strict=True):
                if own.memory not in memories:
                    memories[own.memory] = _laid(tensor, own).untyped_storage()
        return _lying(memories[ref.memory], ref)

    def _needed(self, memory: int) -> list[int]:
        """The steps that a memory's numbers come from, in their order."""
        needed: set[int] = set()
        stack = [(memory, len(self._steps))]
        while stack:
            memory, before = stack.pop()
            for index in self._writers[memory]:
                if index < before and index not in needed:
                    needed.add(index)
                    step = self._steps[index]
                    stack += [(x.memory, index) for x in _refs_in((step.args, step.kwargs))]
        return sorted(needed)


def _has_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_meta


def _outline(value: Any) -> Any:
    """A tensor's shape without its numbers."""
    if not _has_numbers(value):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _room(value: Any) -> Any:
    """Memory for a tensor's numbers."""
    if not isinstance(value, _Ref):
        return value
    return torch.empty_strided(value.size, value.stride, dtype=value.dtype)


def _lying(memory: Any, ref: _Ref) -> Tensor:
    """A tensor in its memory."""
    empty = torch.empty(0, dtype=ref.dtype, device=memory.device)
    return empty.set_(memory, ref.offset, ref.size, ref.stride)


def _laid(tensor: Tensor, ref: _Ref) -> Tensor:
    """A result in the layout that it had on the meta device, which may have another."""
    own = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), tensor.dtype)
    if own == ref[1:]:
        return tensor
    room = torch.empty_strided(ref.size, ref.stride, dtype=ref.dtype, device=tensor.device)
    return room.copy_(tensor)


def _generator(kwargs: Mapping[str, Any]) -> torch.Generator:
    return kwargs.get("generator") or torch.default_generator


def _is_ref(value: Any) -> bool:
    return isinstance(value, _Ref)


def _mapped(function: Callable[[Any], Any], values: Any) -> Any:
    return tree_map(function, values, is_leaf=_is_ref)


def _refs_in(values: Any) -> list[_Ref]:
    return [x for x in tree_leaves(values, is_leaf=_is_ref) if isinstance(x, _Ref)]
