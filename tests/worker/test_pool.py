"""Workers that are killed, run out of time or die with the parent: the others go on."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.processes import BIG, BIG_IS_ALLOWED, limit_memory

from gradprobe.errors import ExitCode, InputError
from gradprobe.worker import pool
from gradprobe.worker.exchange import Failure
from gradprobe.worker.pool import Clock, Lost, default_workers

GOOD = "input: {shape: [8]}\nlayers: [Linear: {out_features: 8}, Tanh, Linear: {out_features: 4}]\n"
SLOW = """\
input: {shape: [256], batch_size: 2048}
layers: [repeat: {times: 200, layers: [Linear: {out_features: 256}, Tanh]}]
"""
COMMAND = [sys.executable, "-m", "gradprobe", "check", "--no-cache", "--output-format", "json"]


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    for name, text in {"a": GOOD, "b": SLOW, "c": GOOD}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def workers(pid: int) -> list[int]:
    """Those of its children that have imported torch."""
    return [c for c in children(pid) if "libtorch" in Path(f"/proc/{c}/maps").read_text()]


def waited(condition: Iterator[object] | object, seconds: float = 60) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():  # type: ignore[operator]
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def messages(out: str) -> dict[str, tuple[int, str]]:
    """Exit code and first message of each target."""
    found = {}
    for target in json.loads(out)["targets"]:
        first = target["diagnostics"][0]["message"] if target["diagnostics"] else ""
        found[target["path"]] = (target["exit_code"], first)
    return found


@pytest.mark.parametrize(
    ("cores", "targets", "workers"),
    [
        (1, 99, 1),
        (4, 99, 4),
        (64, 31, 7),
        (64, 32, 8),
        (64, 999, 8),
        (4, 8, 2),
        (4, 7, 1),
        (4, 0, 1),
    ],
)
def test_there_is_a_worker_for_each_core_and_every_four_targets(
    monkeypatch: pytest.MonkeyPatch, cores: int, targets: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert default_workers(targets) == workers
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_workers(targets) == workers
    monkeypatch.setattr(os, "cpu_count", lambda: None)  # where nobody knows
    assert default_workers(targets) == 1


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_target_alone(specs: Path) -> None:
    (specs / "b.yaml").write_text(GOOD)  # the first is at work while its process imports torch
    process = subprocess.Popen([*COMMAND, "--jobs", "1"], cwd=specs, stdout=-1, text=True)
    [victim] = waited(lambda: workers(process.pid))  # type: ignore[misc]
    os.kill(victim, signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 3
    failed = {path: text for path, (code, text) in messages(out).items() if code == 3}
    assert len(messages(out)) == 3
    [text] = failed.values()
    assert text == "its process was killed by signal 9 (SIGKILL), out of memory?"


@pytest.mark.slow
def test_a_target_that_takes_too_long_is_given_up(specs: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--timeout", "2"], cwd=specs, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    found = messages(done.stdout)
    assert found["b.yaml"] == (3, "not done after 2 seconds")
    assert found["a.yaml"][0] == found["c.yaml"][0] == 0


@pytest.mark.slow
def test_a_worker_without_memory_fails_its_target_alone(specs: Path) -> None:
    (specs / "b.yaml").write_text(BIG)
    command = [*COMMAND, "--jobs", "1"]
    (specs / "gradprobe.toml").write_text(BIG_IS_ALLOWED)
    done = subprocess.run(
        command, cwd=specs, capture_output=True, text=True, check=False, preexec_fn=limit_memory
    )
    assert done.returncode == 3, done.stderr
    found = messages(done.stdout)
    assert found["b.yaml"][0] == 3
    assert found["a.yaml"][0] == found["c.yaml"][0] == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("whole_group", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_interrupt_ends_it_with_130_and_leaves_no_worker(specs: Path, whole_group: bool) -> None:
    process = subprocess.Popen(
        COMMAND, cwd=specs, stdout=-1, stderr=-1, text=True, start_new_session=True
    )
    started = waited(lambda: children(process.pid))
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")
    waited(lambda: not any(Path(f"/proc/{child}").exists() for child in started))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_sweep_names_the_network_whose_worker_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gradprobe", "sweep", "plain", "--depth", "19,20", "-j2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=-1, stderr=-1, text=True)
    os.kill(waited(lambda: workers(process.pid))[0], signal.SIGKILL)  # type: ignore[index]
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (3, "")
    assert re.fullmatch(
        r"gradprobe: error: plain at (19|20): its process was killed by signal 9 \(SIGKILL\), "
        r"out of memory\?\n",
        err,
    )


# ---- the pool itself, without torch


def work(job: str, clock: Clock) -> str:
    clock(30)
    if job == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif job == "leaves":
        os._exit(7)
    elif job == "hangs":
        clock(0.2)
        time.sleep(60)
    elif job == "imports":
        clock(0.2)
        clock(math.inf)
        time.sleep(0.5)
        clock(30)
    elif job == "is wrong":
        raise InputError("it is", hint="mend it")
    elif job == "breaks":
        raise RuntimeError("a fault\nof many lines")
    return f"{job} {os.environ['OMP_NUM_THREADS']}"


FATES = {
    "dies": Lost(
        ExitCode.FAILURE, "its process was killed by signal 9 (SIGKILL), out of memory?", ""
    ),
    "leaves": Lost(ExitCode.FAILURE, "its process ended by itself, with exit code 7", ""),
    "hangs": Lost(
        ExitCode.FAILURE, "not done after 0.2 seconds", "--timeout SECONDS gives it longer"
    ),
    "imports": "imports 1",
    "is wrong": Failure(ExitCode.USAGE, "it is", "mend it"),
    "breaks": Lost(
        ExitCode.FAILURE,
        "internal error: RuntimeError: a fault",
        "GRADPROBE_TRACEBACK=1 gradprobe probe shows where",
    ),
    "ends": "ends 1",
}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_a_job_that_is_lost_costs_no_other(count: int) -> None:
    jobs = list(FATES)
    results = dict(pool.run(work, jobs, count))
    assert {jobs[index]: result for index, result in results.items()} == FATES
    assert [type(results[index]) for index in range(len(jobs))] == [*map(type, FATES.values())]
    assert not multiprocessing.active_children()


def test_results_come_as_soon_as_they_are_there_and_an_end_leaves_no_worker() -> None:
    results = pool.run(work, ["hangs", "ends"], 2)
    assert next(results) == (1, "ends 1")
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()
