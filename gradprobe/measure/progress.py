"""How far a measurement of minutes has come, for whoever shows it. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

# Of the time that a row takes: it is made and run; it is made, run and run backward.
_FORWARD, _BACKWARD = 0.4, 0.6


class Step(NamedTuple):
    """So many rows of all are done, forward or backward."""

    rows: int
    total: int
    backward: bool = False

    @property
    def share(self) -> float:
        """Of the whole work, 0 to 1."""
        done = self.rows / self.total
        return _FORWARD + _BACKWARD * done if self.backward else _FORWARD * done

    def words(self, seconds: float) -> str:
        """``row 31 of 1,000 forward, 12 min left``

        Args:
            seconds: that it took so far.
        """
        way = "backward" if self.backward else "forward"
        left = seconds * (1 / self.share - 1) if self.share else 0.0
        time = f"{left:.0f} s" if left < 120 else f"{left / 60:,.0f} min"
        return f"row {self.rows:,} of {self.total:,} {way}, {time} left"


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
