"""Ways to run the command line, and to write a spec, that the tests share."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two threads on a busy machine wait

import compileall
import multiprocessing
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Where no bytecode is to be written, in a container say, that of the test files and of the package
# is, or each worker would rewrite all assertions, and each process compile the package, anew.
DONT_WRITE, sys.dont_write_bytecode = sys.dont_write_bytecode, False

import numpy as np
import pytest
import torch
from helpers.commands import Result
from helpers.places import ROOT

from gradprobe.cli.main import main
from gradprobe.spec.network import NetworkSpec


def pytest_configure(config: pytest.Config) -> None:
    if DONT_WRITE and not hasattr(config, "workerinput"):
        compileall.compile_dir(ROOT / "gradprobe", quiet=2)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each of pytest-xdist's workers takes a part of the list, and begins with its long tests."""
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    first = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    ends = [len(rest) * number // workers for number in range(workers + 1)]
    items[:] = [
        item
        for number in range(workers)
        for item in (*first[number::workers], *rest[ends[number] : ends[number + 1]])
    ]


def pytest_collection_finish() -> None:
    sys.dont_write_bytecode = DONT_WRITE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The seed of the tests' order, by which a failure can be had again."""
    if seed := terminalreporter.config.getoption("randomly_seed", None):
        terminalreporter.write_line(f"in the order of: pytest -n 0 --randomly-seed={seed}")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal of the person who runs the tests does not show in their results."""
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERMINAL_WIDTH", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """What a test draws depends on no other test, and on no run's seed."""
    random.seed(0)
    np.random.seed(0)
    # torch.manual_seed also notes for each kind of accelerator, with the stack, what is to be done.
    torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def _same_import_path() -> Iterator[None]:
    """No test leaves the import path changed for the next one."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of ``gradprobe check``'s, in which a spec is measured once for all tests.

    pytest-xdist gives each of its workers a folder of its own below one that they share.
    """
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared_cache"


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of ``check`` are forks of this process, which has torch already: seconds less each.

    A user's are spawned; so are those of test_check_process.py and test_pool.py.
    """
    if "fork" in multiprocessing.get_all_start_methods() and torch.get_num_threads() == 1:
        fork = multiprocessing.get_context("fork")
        monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: fork)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run gradprobe in this process: fast, since torch is imported once."""

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(int(stopped.value.code or 0), out, err)

    return call


@pytest.fixture
def run_process() -> Callable[..., Result]:
    """Run gradprobe in a process of its own, with ``stdin`` and further environment variables."""

    def call(
        *arguments: str, stdin: bytes = b"", timeout: float = 60, **environment: str
    ) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "gradprobe", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **environment},
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return call


@pytest.fixture
def parse() -> Callable[[str], NetworkSpec]:
    """A spec from YAML text."""
    from gradprobe.spec.sources.yaml import parse as parse_bytes

    return lambda text: parse_bytes(text.encode(), "net.yaml")
