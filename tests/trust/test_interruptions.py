"""What must be true after a signal at any moment, on a full disk, without streams or memory."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them"),
]

SEED = 20261129
COMMAND = [sys.executable, "-m", "gradprobe"]
TO_DIE = 60  # seconds, on a machine that is busy, in which an orphan must have ended
BAD = "input: {shape: [8]}\n"
BAD += "layers: [repeat: {times: 30, layers: [Linear: {out_features: 8}, Tanh]}]\n"


def begin(*words: str, shell: str = "", limit: Callable[[], Any] | None = None) -> Any:
    """A process of ours, the leader of a group; ``shell`` is what a shell does to its streams."""
    command = [*COMMAND, *words]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=limit, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def ended(*words: str, **how: Any) -> tuple[int, str, str]:
    process = begin(*words, **how)
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in out + err
    assert "internal error" not in out + err
    return process.returncode, out, err


@pytest.fixture
def specs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Six specs, of which one fails, and what stands in them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder.parent / "state"))
    # A trial ends with its time: on a machine that is busy some would have tried, and some not.
    Path("gradprobe.toml").write_text("overfit = false\n")
    Path("bad.yaml").write_text(BAD)
    for number in range(4):
        Path(f"n{number}.yaml").write_text(BAD.replace("30", str(number + 2)))
    return {path.name: path.read_text() for path in folder.glob("*.yaml")}


@pytest.fixture
def expected(specs: dict[str, str], run: Run, forked_workers: None) -> str:
    """What ``check`` prints of them, in a process that nothing befalls."""
    ended = run("check", "--no-cache")
    assert (ended.code, ended.err) == (1, "")
    return ended.out


def gone(group: int) -> bool:
    """Whether no process of a group is left, some seconds later at most."""
    end = time.monotonic() + TO_DIE
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.long
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_damages_nothing(
    specs: dict[str, str], expected: str, kind: signal.Signals
) -> None:
    """Specs are as they were, the baseline is old or new, no process is left, nor what it wrote."""
    start = time.monotonic()
    ended("check", "--no-cache", "--write-baseline", "base.json", "-j", "2")
    seconds = time.monotonic() - start
    new = Path("base.json").read_text()
    draw = random.Random(SEED + kind)
    for number in range(5):
        Path("base.json").write_text("old" if number % 2 else new)
        cache = [] if number % 3 else ["--no-cache"]
        process = begin("check", "--write-baseline", "base.json", "-j", "2", *cache)
        time.sleep(seconds * draw.random())
        process.send_signal(kind)
        process.communicate(timeout=300)
        assert process.returncode in (0, -kind, 128 + kind), number
        assert gone(process.pid), number
        assert Path("base.json").read_text() in ("old", new), number
        assert {path.name: path.read_text() for path in Path().glob("*.yaml")} == specs
        if kind != signal.SIGKILL:
            assert not list(Path().rglob(".gradprobe-*")), number
    assert ended("check", "-j", "2") == (1, expected, "")


def test_a_fix_that_is_interrupted_leaves_the_old_spec_or_the_new(specs: dict[str, str]) -> None:
    start = time.monotonic()
    ended("fix", "bad.yaml", "--write", "--exit-zero")
    seconds, new = time.monotonic() - start, Path("bad.yaml").read_text()
    draw = random.Random(SEED)
    for number in range(6):
        Path("bad.yaml").write_text(BAD)
        process = begin("fix", "bad.yaml", "--write", "--exit-zero")
        time.sleep(seconds * (0.5 + draw.random() / 2))
        process.send_signal((signal.SIGINT, signal.SIGTERM)[number % 2])
        process.communicate(timeout=300)
        assert Path("bad.yaml").read_text() in (BAD, new)
        assert not list(Path().rglob(".gradprobe-*"))


def small_files() -> None:
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # as in helpers/processes.py
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


def no_override() -> None:
    """Without the capabilities by which a superuser writes where nobody may."""
    for capability in (1, 2, 3):  # dac_override, dac_read_search, fowner
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def test_a_full_disk_leaves_the_old_file_and_the_result(
    specs: dict[str, str], expected: str
) -> None:
    Path("out.json").write_text("old")
    told = ended("probe", "net.yaml", "--format", "json", "-o", "out.json", limit=small_files)
    assert told[0] == 2
    assert told[2].startswith("gradprobe: error: cannot write out.json: ")
    assert Path("out.json").read_text() == "old"
    cached = ended("check", limit=small_files)
    assert cached[:2] == (1, expected)
    assert "warning: " in cached[2]
    assert ended("check")[:2] == (1, expected)  # nothing of it is believed
    assert not list(Path().rglob(".gradprobe-*"))
    assert ended("rules", shell="> /dev/full")[0] == 2


def test_where_nothing_may_be_written_the_result_is_the_same(
    specs: dict[str, str], expected: str
) -> None:
    Path("out.json").write_text("old")
    os.chmod("out.json", 0o444)
    os.chmod("bad.yaml", 0o444)
    os.chmod(".", 0o555)
    try:
        cached = ended("check", limit=no_override)
        assert cached[:2] == (1, expected)
        assert "warning: " in cached[2]
        for words in (
            ("probe", "net.yaml", "-o", "out.json"),
            ("probe", "net.yaml", "-o", "new.json"),
            ("fix", "bad.yaml", "--write"),
            ("check", "--write-baseline", "new.json"),
        ):
            assert ended(*words, limit=no_override)[0] == 2, words
    finally:
        os.chmod(".", 0o755)
    assert Path("out.json").read_text() == "old"
    assert Path("bad.yaml").read_text() == BAD


def test_closed_streams_change_no_result(specs: dict[str, str], expected: str) -> None:
    assert ended("check", shell="2>&-")[:2] == (1, expected)
    assert ended("check", shell="<&-")[:2] == (1, expected)
    assert ended("probe", "-", shell="<&-")[0] == 2
    told = ended("check", shell=">&-")
    assert told[0] == 2
    assert told[2].startswith("gradprobe: error: cannot write")
    assert ended("check", "-o", "out.txt", shell=">&- 2>&- <&-")[0] == 1
    assert Path("out.txt").read_text() == expected


@pytest.mark.parametrize("files", [6, 9, 16])
def test_too_few_open_files_are_told(specs: dict[str, str], expected: str, files: int) -> None:

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    told = ended("check", "--no-cache", limit=few)
    assert told[0] in (2, 3) or told[:2] == (1, expected)
    assert told[0] in (0, 1) or "error: " in told[1] + told[2]


@pytest.mark.parametrize("kilobytes", [90_000, 250_000, 1_000_000])
def test_too_little_address_space_is_told(specs: dict[str, str], kilobytes: int) -> None:
    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (kilobytes << 10, kilobytes << 10))

    told = ended("probe", "net.yaml", limit=little)
    assert told[0] in (0, 3)
    assert (told[0] == 0) == (not told[2])
    assert told[0] == 0 or told[2].startswith("gradprobe: error: ")


def test_several_checks_at_once_agree(specs: dict[str, str], expected: str) -> None:
    """Each writes the cache that the others read, and makes the secret that they share."""
    processes = [begin("check") for _ in range(4)]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out, err) == (1, expected, "")
    assert ended("check") == (1, expected, "")
    assert not list(Path().rglob(".gradprobe-*"))
