"""Calls in a process of its own: how each ending of a real child is told, and what is left of it.

The children here import no torch, so that each takes a few hundredths of a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.places import ROOT
from helpers.processes import is_gone

from gradprobe.worker import process
from gradprobe.worker.frames import dumped_frames, users_frame
from gradprobe.worker.process import Answer, Ending

PATIENCE = 30.0  # seconds: far more than any of these children needs
Call = Callable[..., Answer]

HEAD = """
import os, signal, subprocess, sys, time
from gradprobe.worker import process

def main():
    process.serve(answer)

"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call a child whose ``answer(request, note)`` has the given body."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.chdir(tmp_path)

    def run(body: str, request: bytes = b"", timeout: float = PATIENCE) -> Answer:
        lines = textwrap.indent(textwrap.dedent(body), "    ")
        source = f"{HEAD}def answer(request, note):\n{lines}"
        (tmp_path / "kid.py").write_text(source)
        return process.call("kid", request, timeout)

    return run


@pytest.mark.parametrize("size", [0, 1, 1 << 16, 3_000_000])
def test_a_message_of_any_size_goes_there_and_back(call: Call, size: int) -> None:
    request = os.urandom(size)
    answer = call("return request[::-1]", request)
    assert answer.ending is Ending.ANSWERED
    assert answer.message == request[::-1]


ENDINGS = {
    "raises": ("raise ValueError", Ending.ENDED, 1),
    "sys.exit(0)": ("sys.exit(0)", Ending.ENDED, 1),
    "os._exit(0)": ("os._exit(0)", Ending.ENDED, 0),
    "os._exit(7)": ("os._exit(7)", Ending.ENDED, 7),
    "aborts": ("os.abort()", Ending.ENDED, -signal.SIGABRT),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", Ending.ENDED, -signal.SIGKILL),
    "segfault": ("import ctypes; ctypes.string_at(0)", Ending.ENDED, -signal.SIGSEGV),
    "closes every file": ("os.closerange(3, 256); return b'x'", Ending.ENDED, 1),
    "half an answer": (
        "os.write(int(sys.argv[4]), process._framed(b'x' * 99)[:50]); os._exit(0)",
        Ending.ENDED,
        0,
    ),
    "writes a pickle": (
        "os.write(int(sys.argv[4]), b'\\x80\\x04cos\\nsystem\\n(S\"true\"\\ntR.'); time.sleep(99)",
        Ending.GARBLED,
        -signal.SIGKILL,
    ),
    "writes another digest": (
        "frame = process._framed(b'x'); frame = frame[:20] + bytes([frame[20] ^ 1]) + frame[21:]\n"
        "os.write(int(sys.argv[4]), frame); time.sleep(99)",
        Ending.GARBLED,
        -signal.SIGKILL,
    ),
    "writes another end": (
        "os.write(int(sys.argv[4]), process._framed(b'x')[:-1] + b'.'); time.sleep(99)",
        Ending.GARBLED,
        -signal.SIGKILL,
    ),
    "writes another beginning": (
        "os.write(int(sys.argv[4]), b'PK' + process._framed(b'x')[2:]); time.sleep(99)",
        Ending.GARBLED,
        -signal.SIGKILL,
    ),
    "promises too much": (
        "os.write(int(sys.argv[4]), b'gp-reply' + b'\\xff' * 8); time.sleep(99)",
        Ending.GARBLED,
        -signal.SIGKILL,
    ),
    # The fork runs to the end as well: one of the two answers.
    "forks": ("os.fork(); return str(os.getpid()).encode()", Ending.ANSWERED, None),
    "prints": (
        "print('x' * 100_000); os.write(1, b'fd 1'); os.close(1); return b'x'",
        Ending.ANSWERED,
        None,
    ),
    # Its copy of the pipe stays open as long as the grandchild lives.
    "leaves a fork that holds the pipe": (
        "os.fork() or time.sleep(99); os._exit(3)",
        Ending.ENDED,
        3,
    ),
}


@pytest.mark.parametrize(("body", "ending", "status"), ENDINGS.values(), ids=ENDINGS)
def test_each_ending_is_told_for_what_it_is(
    call: Call, capfd: pytest.CaptureFixture[str], body: str, ending: Ending, status: int | None
) -> None:
    answer = call(body)
    assert answer.ending is ending
    assert status is None or answer.status == status
    assert bool(answer.message) == (ending is Ending.ANSWERED)
    assert capfd.readouterr().out == ""  # what it prints is on standard error


def test_a_file_that_took_the_number_of_the_pipe_is_not_written(call: Call, tmp_path: Path) -> None:
    body = """
    pipe = int(sys.argv[4])
    os.close(pipe)
    os.dup2(os.open("mine.txt", os.O_WRONLY | os.O_CREAT), pipe)
    return b"secret"
    """
    assert call(body).ending is Ending.ENDED
    assert (tmp_path / "mine.txt").read_bytes() == b""


HANGS = {
    "python": "while True: pass",
    "a sleep": "time.sleep(99)",
    "deaf to signals": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)",
}


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_child_that_hangs_is_killed_and_says_where(call: Call, hang: str) -> None:
    started = time.monotonic()
    answer = call(f"note('waiting')\n{hang}", timeout=2.5)
    assert answer.ending is Ending.TIMED_OUT
    assert answer.status == -signal.SIGKILL
    assert answer.stage == "waiting"
    frame = users_frame(dumped_frames(answer.dump))
    assert frame is not None
    assert (Path(frame.file).name, frame.function) == ("kid.py", "answer")
    assert frame.excerpt.strip() == hang
    assert time.monotonic() - started < PATIENCE / 2


def test_a_crash_says_where(call: Call) -> None:
    answer = call("note('x')\nimport ctypes\nctypes.string_at(0)")
    frame = users_frame(dumped_frames(answer.dump))
    assert frame is not None
    assert frame.excerpt.strip() == "ctypes.string_at(0)"  # and not ctypes' own line


@pytest.mark.parametrize("end", ["return b'x'", "os._exit(0)", "time.sleep(99)"])
def test_no_grandchild_is_left(call: Call, tmp_path: Path, end: str) -> None:
    body = f"""
    kid = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    open("pid", "w").write(str(kid.pid))
    {end}
    """
    call(body, timeout=PATIENCE if "sleep" not in end else 2.5)
    assert is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_the_child_ends_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    hang = "    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(99)\n"
    (tmp_path / "kid.py").write_text(f"{HEAD}def answer(request, note):\n{hang}")
    script = "from gradprobe.worker import process; process.call('kid', b'', 99.0)"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment) as parent:
        pid = tmp_path / "pid"
        for _ in range(500):
            if pid.exists() and pid.read_text():
                break
            time.sleep(0.02)
        parent.send_signal(number)
    assert is_gone(int(pid.read_text()))


def test_the_working_directory_does_not_stand_in_for_the_standard_library(
    call: Call, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "selectors.py").write_text("raise RuntimeError('shadowed')")
    os.chdir(tmp_path / "here")  # the fixture's monkeypatch takes it back
    assert call("return b'x'").ending is Ending.ANSWERED
