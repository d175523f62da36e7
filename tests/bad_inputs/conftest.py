"""Each case of bad input is refused at once: one that takes too long fails."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from helpers.commands import Result, Run

# Of the processor, and of the clock: a case may not wait either.
LIMITS = {signal.SIGPROF: (signal.ITIMER_PROF, 5), signal.SIGALRM: (signal.ITIMER_REAL, 60)}


class TooSlow(BaseException):
    """Not an ``Exception``, which a boundary would turn into a message."""


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    """A case that takes too long fails, instead of holding up the others."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"took more than {LIMITS[signal.Signals(number)][1]} s")

    before = {number: signal.signal(number, stop) for number in LIMITS}
    for timer, seconds in LIMITS.values():
        signal.setitimer(timer, seconds)
    yield
    for timer, _ in LIMITS.values():
        signal.setitimer(timer, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec file in the working directory, so that its name is short."""
    monkeypatch.chdir(tmp_path)
    return Path("net.yaml")


@pytest.fixture
def probe(run: Run, file: Path) -> Run:
    """Probe a spec given as text or bytes, with further options."""

    def call(spec: str | bytes, *options: str) -> Result:
        file.write_bytes(spec if isinstance(spec, bytes) else spec.replace("▲", "").encode())
        return run("probe", str(file), *options)

    return call
