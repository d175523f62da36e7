"""How far a measurement has come, for whoever shows it. No torch."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import NamedTuple

# Of the time that a row takes: it is made and run; it is made, run and run backward.
_FORWARD, _BACKWARD = 0.4, 0.6
_LINE = re.compile(r"([0-9]{1,9}) ([0-9]{1,9}) ([01]) (row|step|block|change)")
_PAUSE = 0.2  # s between two lines


class Step(NamedTuple):
    """So many rows of all are done, forward or backward; or so many of something else."""

    rows: int
    total: int
    backward: bool = False
    unit: str = "row"

    @property
    def share(self) -> float:
        """Of the whole work, 0 to 1."""
        done = self.rows / self.total
        if self.unit != "row":
            return done
        return _FORWARD + _BACKWARD * done if self.backward else _FORWARD * done

    def words(self, seconds: float | None) -> str:
        """``row 31 of 1,000 forward, 12 min left``

        Args:
            seconds: that it took so far; ``None`` where that is not known.
        """
        way = (" backward" if self.backward else " forward") if self.unit == "row" else ""
        most = "at most " if self.unit == "step" else ""  # a trial ends when it has learned
        done = f"{self.unit} {self.rows:,} of {most}{self.total:,}{way}"
        if seconds is None:
            return done
        left = seconds * (1 / self.share - 1) if self.share else 0.0
        time = f"{left:.0f} s" if left < 120 else f"{left / 60:,.0f} min"
        return f"{done}, {most}{time} left"

    @property
    def line(self) -> str:
        """The step as ``read`` takes it from another process."""
        return f"{self.rows} {self.total} {self.backward:d} {self.unit}"

    @classmethod
    def read(cls, line: str) -> Step | None:
        """The step of a line; ``None`` where it is none: a model's code may have written it."""
        match = _LINE.fullmatch(line)
        if match is None or not 0 < int(match[1]) <= int(match[2]):
            return None
        return cls(int(match[1]), int(match[2]), match[3] == "1", match[4])

    def follows(self, before: Step | None) -> bool:
        """Whether it goes on with the work of the one before: else the time counts from here."""
        same = before is not None and (before.unit, before.total) == (self.unit, self.total)
        return same and before is not None and before.share <= self.share


Listener = Callable[[Step], None]
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Meanwhile ``listener`` is told of each step."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell(step: Step) -> None:
    """Tell who listens."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(step)


def meter() -> Callable[[Step], str]:
    """A function from a step to the words for it, which keeps the time of the work it belongs to.

    What was before the first step, such as the import of torch, says nothing of the others.
    """
    first: Step | None = None
    last: Step | None = None
    begin = 0.0

    def words(step: Step) -> str:
        nonlocal first, last, begin
        if first is None or not step.follows(last):
            first, begin = step, time.monotonic()
        last = step
        pace = step.share - first.share
        seconds = time.monotonic() - begin
        return step.words(seconds * step.share / pace if pace else None)

    return words


def writing(write: Callable[[str], None]) -> AbstractContextManager[None]:
    """Meanwhile ``write`` gets the line of a step, a few times a second."""
    last = 0.0

    def hear(step: Step) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE:
            last = time.monotonic()
            write(step.line)

    return listening(hear)


def silently() -> AbstractContextManager[None]:
    """Meanwhile nobody is told: the steps are part of a larger one."""
    return listening(lambda step: None)
