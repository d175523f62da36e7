"""What a stranger's file may do: nothing here may reach a network, or take long."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

SECONDS = 100  # of the clock, on a machine that is busy


class TooSlow(BaseException):
    """Not an ``Exception``, which a boundary would turn into a message."""


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a connection fails with an error that no boundary takes for another."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise TooSlow(f"a connection was asked for: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _ends(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs fails."""
    seconds = SECONDS * (10 if request.node.get_closest_marker("slow") else 1)

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a good spec in it."""
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(
        "input: {shape: [8]}\nlayers:\n  - Linear: {out_features: 8}\n"
        "  - Linear: {out_features: 4}\n"
    )
    return tmp_path
