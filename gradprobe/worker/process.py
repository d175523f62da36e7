"""A function run in a process of its own, which hands back a complete message or does not.

Only the standard library, on POSIX. The child may end itself, be killed, hang, print, fork, or
write rubbish wherever it can: what counts as its answer is one message on a pipe of its own, framed
by ``_MAGIC``, its length, its SHA-256 and ``_END``. Its standard output goes to standard error.
When the call is over, however it ended, its whole process group is killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import NamedTuple, NoReturn

_MAGIC, _END = b"gp-reply", b"gp-done\n"
_LENGTH, _DIGEST = 8, 32  # bytes
_MOST = 1 << 28  # bytes of an answer: no profile comes near
_MOST_NOTES = 1 << 20
_TAIL = 1 << 12
_TICK = 0.1  # s between two looks whether a child has ended whose pipe a grandchild holds open
_GRACE = 2.0  # s that a child has for writing down where it hangs
_START = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from importlib import import_module; import_module(sys.argv[2]).main()"
)
_AT = "at "
DONE = "done "  # what begins so says how far it is

Note = Callable[[str], None]
Hear = Callable[[str], None]  # of what a child says it has done

_running: set[int] = set()  # the process groups of the calls that are under way


class Ending(StrEnum):
    """How a call ended."""

    ANSWERED = "answered"
    ENDED = "ended"  # by itself or by a signal, without a complete answer
    TIMED_OUT = "timed out"
    GARBLED = "garbled"  # something else than an answer came through the pipe


class Answer(NamedTuple):
    """How a call ended, and what is known of it."""

    ending: Ending
    message: bytes = b""
    status: int = 0  # of the process: its exit code, or minus the number of a signal
    stage: str = ""  # the last that the child noted
    dump: str = ""  # what faulthandler wrote: where a crash or a hang was


def call(module: str, request: bytes, timeout: float, hear: Hear = lambda words: None) -> Answer:
    """Run ``module.main()``, which calls ``serve``, in a new process, and wait for its answer.

    Args:
        module: the full name of a module of gradprobe.
        request: what ``serve`` hands to its function.
        timeout: seconds, the start of Python included.
        hear: gets what the child wrote last of how far it is.
    """
    with contextlib.ExitStack() as stack:
        notes = stack.enter_context(tempfile.TemporaryFile())
        their_request, our_request = _pipe(stack)
        our_answer, their_answer = _pipe(stack)
        theirs = (their_request.fileno(), their_answer.fileno(), notes.fileno())
        child = _start(module, theirs)
        _running.add(child.pid)
        try:
            their_request.close()
            their_answer.close()
            with contextlib.suppress(BrokenPipeError):  # a child that has ended says so below
                _write(our_request.fileno(), _framed(request))
            until = time.monotonic() + timeout
            ending, message = _await(child, our_answer.fileno(), until, _Told(notes.fileno(), hear))
            if ending is Ending.TIMED_OUT:
                _ask_where(child, notes.fileno())
        finally:
            _kill(child.pid)
            status = child.wait()
            _running.discard(child.pid)
        text = os.pread(notes.fileno(), _MOST_NOTES, 0).decode("utf-8", "replace")
    stages = [line.removeprefix(_AT) for line in text.splitlines() if line.startswith(_AT)]
    return Answer(ending, message, status, stages[-1] if stages else "", text)


def kill_all() -> None:
    """End every call that is under way; for a process that is about to exit at once."""
    for group in tuple(_running):
        _kill(group)


def killed_by(number: int) -> str:
    """What is said of a process that a signal ended."""
    names = [f" ({known.name})" for known in signal.Signals if known == number]
    return f"its process was killed by signal {number}{''.join(names)}"


# ---- in the child


def serve(function: Callable[[bytes, Note], bytes]) -> NoReturn:
    """Answer the one request of the parent with ``function(request, note)``, and exit.

    ``note`` writes down what begins now, which is told if the process ends in the middle of it.
    """
    request_fd, answer_fd, notes_fd = map(int, sys.argv[3:6])
    for fd in (request_fd, answer_fd, notes_fd):
        os.set_inheritable(fd, False)
    pipe, own = os.fstat(answer_fd), os.getpid()
    faulthandler.enable(notes_fd, all_threads=False)
    faulthandler.register(signal.SIGUSR1, notes_fd, all_threads=False)

    def note(stage: str) -> None:
        with contextlib.suppress(OSError):
            begin = "" if stage.startswith(DONE) else _AT
            os.write(notes_fd, f"{begin}{stage}\n".encode("utf-8", "replace"))

    note("starting")
    with open(request_fd, "rb", buffering=0, closefd=False) as stream:
        request = _read_framed(stream.read)
    threading.Thread(target=_end_with_parent, args=(request_fd, own), daemon=True).start()
    status = 1
    try:
        message = function(request, note)
        for output in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                output.flush()
        # A fork of the child must not answer too, and a file that took the pipe's number is not
        # the pipe.
        if os.getpid() == own and os.path.samestat(pipe, os.fstat(answer_fd)):
            _write(answer_fd, _framed(message))
            status = 0
    finally:
        os._exit(status)  # what the model has registered to run at exit is not asked


def _end_with_parent(request_fd: int, own: int) -> None:
    """The parent holds the other end open as long as it lives."""
    with contextlib.suppress(OSError):
        if not os.read(request_fd, 1) and os.getpid() == own:
            os.killpg(own, signal.SIGKILL)  # by number: it leads its group, or there is none


# ---- in the parent


def _pipe(stack: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    ends = os.pipe()
    reading, writing = FileIO(ends[0], "rb"), FileIO(ends[1], "wb")
    return stack.enter_context(reading), stack.enter_context(writing)


def _start(module: str, fds: tuple[int, int, int]) -> subprocess.Popen[bytes]:
    home = str(Path(__file__).parent.parent)
    # -P: the working directory's files do not stand in for gradprobe's and torch's imports.
    command = [sys.executable, "-P", "-c", _START, home, module, *map(str, fds)]
    try:
        os.fstat(2)
        output = 2
    except OSError:
        output = subprocess.DEVNULL
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=fds,
        start_new_session=True,
    )


class _Told:
    """Hands on what a child notes of how far it is, each once."""

    def __init__(self, notes: int, hear: Hear) -> None:
        self.notes, self.hear, self.size = notes, hear, 0

    def look(self) -> None:
        size = os.fstat(self.notes).st_size
        if size == self.size:
            return
        self.size = size
        text = os.pread(self.notes, _TAIL, max(0, size - _TAIL)).decode("utf-8", "replace")
        done = [line for line in text.splitlines() if line.startswith(DONE)]
        if done:
            self.hear(done[-1].removeprefix(DONE))


def _await(
    child: subprocess.Popen[bytes], pipe: int, deadline: float, told: _Told
) -> tuple[Ending, bytes]:
    """Read until the answer is complete, cannot become one, or the child or the time has ended."""
    received = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return Ending.TIMED_OUT, b""
            # Before the look at the pipe: what it wrote is all there by then.
            ended = child.poll() is not None
            ready = bool(selector.select(0 if ended else min(left, _TICK)))
            told.look()
            if ready:
                chunk = os.read(pipe, 1 << 16)
                received += chunk
                try:
                    message = _complete(received)
                except ValueError:
                    return Ending.GARBLED, b""
                if message is not None:
                    return Ending.ANSWERED, message
                if not chunk:  # closed at the other end: there is only the child's end to wait for
                    selector.unregister(pipe)
            elif ended:
                return Ending.ENDED, b""


def _ask_where(child: subprocess.Popen[bytes], notes: int) -> None:
    """Let a child that hangs write down where."""
    before = size = os.fstat(notes).st_size
    if not before:  # it has not come so far as to listen to the signal
        return
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGUSR1)
    until = time.monotonic() + _GRACE
    while time.monotonic() < until:
        time.sleep(0.02 if size == before else 0.1)  # until no more comes of what it began to write
        earlier, size = size, os.fstat(notes).st_size
        if earlier == size != before:
            break


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


# ---- the frame around a message


def _framed(message: bytes) -> bytes:
    length = len(message).to_bytes(_LENGTH, "big")
    return b"".join([_MAGIC, length, message, hashlib.sha256(message).digest(), _END])


def _complete(received: bytes | bytearray) -> bytes | None:
    """The message, once all of it is there.

    Raises:
        ValueError: this is not, and will not become, a framed message.
    """
    start = len(_MAGIC) + _LENGTH
    if received[: len(_MAGIC)] != _MAGIC[: len(received)]:
        raise ValueError("not a message")
    if len(received) < start:
        return None
    length = int.from_bytes(received[len(_MAGIC) : start], "big")
    if length > _MOST:
        raise ValueError("too long")
    end = start + length
    if len(received) < end + _DIGEST + len(_END):
        return None
    message = bytes(received[start:end])
    digest, mark = received[end : end + _DIGEST], received[end + _DIGEST :][: len(_END)]
    if digest != hashlib.sha256(message).digest() or mark != _END:
        raise ValueError("damaged")
    return message


def _read_framed(read: Callable[[int], bytes | None]) -> bytes:
    received = b""
    while (message := _complete(received)) is None:
        chunk = read(1 << 16)
        if not chunk:
            raise EOFError("the parent has ended")
        received += chunk
    return message


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
