"""Targets probed in worker processes, of which any may run out of time, of memory, or be killed.

A pool of the standard library breaks as a whole when one of its processes dies and cannot give up
on one task. This one keeps a pipe to each worker and hands out one target at a time: a worker that
is lost costs the target that it had, and another is started for the next.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

from gradprobe.errors import ExitCode, GradprobeError, InputError, first_line
from gradprobe.spec.network import CodeSpec
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.python import CodeOptions, completed, require_allowed
from gradprobe.spec.sources.yaml import parse_any
from gradprobe.tasks.probe import measure_spec
from gradprobe.verdict.rules.table import check_ignores
from gradprobe.worker.archive import Failure, Reply, encode
from gradprobe.worker.run import RunOptions, measure_code


class Job(NamedTuple):
    """One target to be measured: its bytes, what it is called, how, and for how long at most."""

    name: str
    data: bytes
    options: ProbeOptions
    timeout: float  # seconds; importing torch does not count
    allow_code: bool = False  # whether the code that a spec names may run


class Done(NamedTuple):
    """An encoded ``archive.Reply``, and whether the target's bytes and the options alone decide it.

    What a spec that names code does, and whether memory runs out, they do not.
    """

    body: str
    lasting: bool


Result = Done | Failure

_running: set[SpawnProcess] = set()
_TO_START = 60.0  # seconds that a process may take until it says so
_TO_DIE = 5.0  # seconds that a process may take to end when its pipe has ended


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    index: int  # of the job that it has
    deadline: float


def run(jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, Result]]:
    """Each job's index and result, as soon as it is there; one thread in each worker."""
    waiting = deque(range(len(jobs)))
    pool: list[_Worker] = []
    try:
        while waiting or pool:
            while waiting and len(pool) < workers:
                pool.append(_start(waiting.popleft(), jobs))
            rest = max(0.0, min(w.deadline for w in pool) - time.monotonic())
            ready = connection.wait([w.pipe for w in pool], min(rest, 3600.0))
            for worker in list(pool):
                result = None
                if worker.pipe in ready:
                    result = _received(worker, jobs)
                elif time.monotonic() >= worker.deadline:
                    seconds = f"{jobs[worker.index].timeout:g} seconds"
                    result = Failure(ExitCode.FAILURE, f"not done after {seconds}", "--timeout")
                    _end(worker)
                if result is None:
                    continue
                yield worker.index, result
                if not worker.process.is_alive() or not waiting:
                    _end(worker)
                    pool.remove(worker)
                else:
                    _hand_over(worker, waiting.popleft(), jobs)
    finally:
        for worker in pool:
            _end(worker)


def kill_all() -> None:
    """End every worker; for a process that is about to exit at once."""
    for process in tuple(_running):
        process.kill()


def default_workers(targets: int) -> int:
    """As many as there are cores, at most 8, and one for every four targets."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, 8, targets // 4))


# ---- in the parent


def _start(index: int, jobs: Sequence[Job]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there,), daemon=True)
    resource_tracker.ensure_running()  # which would unblock interrupts when it is started
    with _interrupts_blocked():  # until the worker has said what an interrupt does to it
        process.start()
    _running.add(process)
    there.close()
    worker = _Worker(process, here, index, 0.0)
    _hand_over(worker, index, jobs)
    worker.deadline += _TO_START
    return worker


def _hand_over(worker: _Worker, index: int, jobs: Sequence[Job]) -> None:
    worker.index = index
    worker.deadline = time.monotonic() + jobs[index].timeout
    with contextlib.suppress(OSError):  # it has died: its pipe will say so
        worker.pipe.send(jobs[index])


def _received(worker: _Worker, jobs: Sequence[Job]) -> Result | None:
    """What a worker sent: its result; ``None`` where it only says that it imports torch."""
    try:
        message = worker.pipe.recv()
    except Exception as error:  # the end of the pipe, or what a killed worker had sent
        worker.process.join(_TO_DIE)  # its exit code comes a little later
        if worker.process.is_alive():
            _end(worker)
            return Failure(ExitCode.FAILURE, f"its answer cannot be read: {first_line(error)}")
        return Failure(ExitCode.FAILURE, _how_it_ended(worker.process.exitcode))
    if message == "importing":
        worker.deadline = float("inf")
        return None
    if message in ("started", "imported"):
        worker.deadline = time.monotonic() + jobs[worker.index].timeout
        return None
    return message  # type: ignore[no-any-return]


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.join(0.2)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    _running.discard(worker.process)


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended by itself, with exit code {code}"
    cause = ", out of memory?" if -code == signal.SIGKILL else ""
    return f"its process was killed by signal {-code} ({signal.Signals(-code).name}){cause}"


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- in the worker


def _work(pipe: Connection) -> None:
    """Measure one target after the other, until the parent closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    warnings.simplefilter("ignore")
    with contextlib.suppress(EOFError, OSError):
        pipe.send("started")
        while True:
            pipe.send(_measured(pipe.recv(), pipe))


def _measured(job: Job, pipe: Connection) -> Result:
    def import_torch() -> None:
        if "torch" not in sys.modules:
            pipe.send("importing")
            import torch

            torch.set_num_threads(1)
            pipe.send("imported")

    lasting = False
    try:
        spec = parse_any(job.data, job.name)
        check_ignores(spec)
        if isinstance(spec, CodeSpec):
            require_allowed(spec, job.allow_code)
            pipe.send("importing")  # from here on the code's own process keeps the time
            run = RunOptions(job.timeout)
            code = completed(spec, CodeOptions())
            reply = Reply(measure_code(code, job.options, run))
        else:
            import_torch()
            lasting = True  # what is wrong with the spec, too
            measured = measure_spec(spec, job.options)
            reply = Reply(measured)
            # As where memory ran out, of which another run may find more.
            lasting = not (measured.training and measured.training.failed)
        return Done(encode(reply), lasting)
    except InputError as error:
        return Done(encode(Reply(failure=Failure.of(error))), lasting)
    except GradprobeError as error:
        return Failure.of(error)
    except (OSError, EOFError):
        raise
    except Exception as error:
        what = f"internal error: {type(error).__name__}: {first_line(error)}"
        return Failure(ExitCode.FAILURE, what, "GRADPROBE_TRACEBACK=1 gradprobe probe shows where")
