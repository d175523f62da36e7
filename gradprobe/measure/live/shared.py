"""What watchers change of the process, which has one of each: the last to leave puts it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Any


class Shared:
    """Is inside ``make()`` while anybody is inside it; they may leave in any order."""

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self.make = make
        self._users = 0
        self._undo = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if not self._users:
            self._undo.enter_context(self.make())
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._undo.close()


class Listeners:
    """Those that are called with the arguments of a function that takes no hooks."""

    def __init__(self, owner: Any, name: str, *, after: bool = False) -> None:
        self.owner, self.name, self.after = owner, name, after
        self._all: list[Callable[..., None]] = []
        self._wrapped = Shared(self._wrapping)

    @contextmanager
    def with_one(self, listener: Callable[..., None]) -> Iterator[None]:
        """Meanwhile ``listener`` is called before the function is, or ``after`` it."""
        with self._wrapped():
            self._all.append(listener)
            try:
                yield
            finally:
                self._all.remove(listener)

    @contextmanager
    def _wrapping(self) -> Iterator[None]:
        original = getattr(self.owner, self.name)

        @wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.after:
                result = original(*args, **kwargs)
            for listener in tuple(self._all):
                listener(*args, **kwargs)
            return result if self.after else original(*args, **kwargs)

        setattr(self.owner, self.name, wrapper)
        try:
            yield
        finally:
            setattr(self.owner, self.name, original)
