"""Workers that are killed, run out of time or die with the parent: the others go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.processes import BIG, BIG_IS_ALLOWED, limit_memory

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


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_target_alone(specs: Path) -> None:
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
