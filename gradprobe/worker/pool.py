"""Jobs done in worker processes, of which any may run out of time, of memory, or be killed.

Other pools break as a whole when a process dies: the standard library's always, pebble's when the
process is idle or still importing. This one keeps a pipe to each worker and hands out one job at a
time: a worker that is lost costs the job that it had, and another is started for the next.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from gradprobe.errors import ExitCode, GradprobeError, first_line
from gradprobe.worker.exchange import Failure
from gradprobe.worker.process import killed_by

Clock = Callable[[float], None]  # sets how many seconds the job may still take
Job = TypeVar("Job")
Result = TypeVar("Result")

_TO_START = 60.0  # seconds that a process may take until its job sets the clock
_TO_DIE = 5.0  # seconds that a process may take to end when its pipe has ended
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class Lost(Failure):
    """Why a job has no result: its process ended, took too long or met an internal error."""


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    index: int = -1  # of the job that it has
    seconds: float = 0.0  # that the job may take
    deadline: float = 0.0

    def hand_over(self, index: int, job: object) -> None:
        self.index = index
        self.set_clock(_TO_START)
        with contextlib.suppress(OSError):  # where it has died, its pipe will say so
            self.pipe.send(job)

    def set_clock(self, seconds: float) -> None:
        self.seconds, self.deadline = seconds, time.monotonic() + seconds

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def run(
    work: Callable[[Job, Clock], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[int, Result | Failure]]:
    """Each job's index and result, as soon as it is there; one thread in each worker.

    Args:
        work: a function at the top of a module. It sets the clock first, and again around what
            shall not count. A ``GradprobeError`` that it raises becomes the job's ``Failure``.
    """
    waiting = deque(enumerate(jobs))
    pool: list[_Worker] = []
    try:
        while waiting or pool:
            while waiting and len(pool) < workers:
                pool.append(_start(work))
                pool[-1].hand_over(*waiting.popleft())
            rest = max(0.0, min(worker.deadline for worker in pool) - time.monotonic())
            ready = connection.wait([worker.pipe for worker in pool], min(rest, 3600.0))
            for worker in list(pool):
                if worker.pipe in ready:
                    result = _received(worker)
                elif time.monotonic() >= worker.deadline:
                    worker.end()
                    hint = "--timeout SECONDS gives it longer"
                    result = _lost(f"not done after {worker.seconds:g} seconds", hint)
                else:
                    continue
                if result is None:
                    continue
                yield worker.index, result
                if waiting and worker.process.is_alive():
                    worker.hand_over(*waiting.popleft())
                else:
                    worker.end()
                    pool.remove(worker)
    finally:
        for worker in pool:
            worker.end()


def kill_all() -> None:
    """End every worker; for a process that is about to exit at once."""
    for process in multiprocessing.active_children():
        process.kill()


def default_workers(targets: int) -> int:
    """As many as there are cores, at most 8, and one for every four targets."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, 8, targets // 4))


# ---- in the parent


def _start(work: Callable[[Any, Clock], object]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(work, there), daemon=True)
    with _safe_path():
        resource_tracker.ensure_running()  # which would unblock interrupts when it is started
    with _interrupts_blocked(), _safe_path():  # until it has said what an interrupt does to it
        process.start()
    there.close()
    return _Worker(process, here)


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """A worker's imports are not looked for in the working directory, which may be anyone's."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _received(worker: _Worker) -> Any:
    """What a worker sent: its result; ``None`` where it only sets the clock."""
    try:
        message = worker.pipe.recv()
    except Exception as error:  # the end of the pipe, or what a killed worker had sent
        worker.process.join(_TO_DIE)  # its exit code comes a little later
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
            return _lost(f"its answer cannot be read: {first_line(error)}")
        return _lost(_how_it_ended(worker.process.exitcode))
    if isinstance(message, float):
        worker.set_clock(message)
        return None
    return message


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended by itself, with exit code {code}"
    cause = ", out of memory?" if -code == signal.SIGKILL else ""
    return f"{killed_by(-code)}{cause}"


def _lost(message: str, hint: str = "") -> Lost:
    return Lost(ExitCode.FAILURE, message, hint)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- in the worker


def import_torch(clock: Clock, seconds: float) -> None:
    """Import torch, with one thread, and start the clock again when that is done."""
    clock(math.inf)
    import torch

    torch.set_num_threads(1)
    clock(seconds)


def _serve(work: Callable[[Any, Clock], object], pipe: Connection) -> None:
    """Do one job after the other, until the parent closes the pipe or is gone."""
    for interrupt in _INTERRUPTS:
        signal.signal(interrupt, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    warnings.simplefilter("ignore")
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(_done(work, pipe.recv(), lambda seconds: pipe.send(float(seconds))))


def _done(work: Callable[[Any, Clock], object], job: object, clock: Clock) -> object:
    try:
        return work(job, clock)
    except GradprobeError as error:
        return Failure.of(error)
    except Exception as error:
        message = f"internal error: {type(error).__name__}: {first_line(error)}"
        return _lost(message, "GRADPROBE_TRACEBACK=1 gradprobe probe shows where")
