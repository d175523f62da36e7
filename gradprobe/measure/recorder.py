"""The one way in which rows are watched while they run: hooks that are removed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from gradprobe.measure.profile import call_name
from gradprobe.model.rows import Row

Arguments = tuple[Any, Any]  # positional, and by name


def takes_hooks(module: nn.Module) -> bool:
    """Whether its calls can be watched: torch runs those of a scripted one by itself."""
    return not isinstance(module, torch.jit.ScriptModule)


class Hook:
    """A hook that does nothing in a copy of its module, as a program that is watched makes some."""

    def __init__(self, do: Callable[..., Any]) -> None:
        self.do = do

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.do(*args, **kwargs)

    def __reduce__(self) -> tuple[type[Hook], tuple[Callable[..., None]]]:
        return Hook, (_nothing,)


def _nothing(*_: Any, **__: Any) -> None:
    """What the hook of a copy does."""


class Recorder:
    """Watches rows run inside ``with``; a subclass says what it notes of each call.

    ``running`` are the calls that have begun and not ended, the innermost last, each with what
    ``before`` noted. While ``recording`` is false nothing is: checkpointing runs the forward pass
    again during the backward pass.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = rows
        self.running: list[tuple[Row, Any]] = []
        self.recording = True
        self._counts: Counter[str] = Counter()  # of the calls of each row that have ended
        self._handles = ExitStack()

    def before(
        self, row: Row, args: Any, kwargs: Mapping[str, Any]
    ) -> tuple[Any, Arguments | None]:
        """A note on a call that begins, and the arguments that it gets instead, if any."""
        return None, None

    def after(self, row: Row, note: Any, output: Any) -> Any:
        """The same call has ended; what is returned, if anything, is handed on as its output."""

    def call_name(self, row: Row) -> str:
        """The name of the call of the row that has just ended."""
        return call_name(row.name, self._counts[row.name])

    def until_exit(self, handle: RemovableHandle) -> None:
        """Remove this hook at the end as well."""
        self._handles.callback(handle.remove)

    def before_calls(self, module: nn.Module, do: Callable[..., Any]) -> None:
        """Call ``do`` with the module and its arguments whenever it is called, until the end."""
        hook = Hook(do)
        self.until_exit(module.register_forward_pre_hook(hook, with_kwargs=True))
        # Torch calls what it began with, also where it is removed meanwhile, and without kwargs.
        self._handles.callback(setattr, hook, "do", _nothing)

    def __enter__(self) -> Self:
        for row in self.rows:
            if takes_hooks(row.module):
                self.before_calls(row.module, partial(self._begin, row))
                end = Hook(partial(self._end, row))
                self.until_exit(row.module.register_forward_hook(end))
        return self

    def __exit__(self, *exception: object) -> None:
        self._handles.close()

    def _begin(self, row: Row, module: nn.Module, args: Any, kwargs: Any) -> Arguments | None:
        if not self.recording:
            return None
        note, arguments = self.before(row, args, kwargs)
        self.running.append((row, note))
        return arguments

    def _end(self, row: Row, module: nn.Module, args: Any, output: Any) -> Any:
        # Calls that ended by an exception have not been taken off.
        while self.recording and self.running:
            begun, note = self.running.pop()
            if begun is row:
                self._counts[row.name] += 1
                return self.after(row, note, output)
        return None
