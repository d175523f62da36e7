"""``gradprobe check`` in real processes: exit codes, pipes, full disks, two at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.check_specs import GOOD, INVALID, VANISHING, write
from helpers.processes import BIG, BIG_IS_ALLOWED, broken_pipe, limit_file_size, limit_memory

COMMAND = [sys.executable, "-m", "gradprobe", "check"]
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def check(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        given = {"stdout": -1, "stderr": -1, "text": True, "timeout": 120} | options
        command = [*COMMAND, "--cache-dir", str(shared_cache), *arguments]
        return subprocess.run(command, cwd=tmp_path, check=False, **given)  # type: ignore[call-overload, no-any-return]

    return call


@pytest.mark.slow  # test_check.py has the same in one process
@pytest.mark.parametrize(
    ("specs", "code"),
    [
        ("good", 0),
        ("vanishing", 1),
        ("invalid", 2),
        ("big", 3),
        ("good vanishing", 1),
        ("good vanishing invalid", 2),
        ("good vanishing invalid big", 3),
    ],
)
def test_exit_codes_alone_and_mixed(check: Check, tmp_path: Path, specs: str, code: int) -> None:
    texts = {"good": GOOD, "vanishing": VANISHING, "invalid": INVALID, "big": BIG}
    write(tmp_path, **{name: texts[name] for name in specs.split()})
    (tmp_path / "gradprobe.toml").write_text(BIG_IS_ALLOWED)
    done = check(preexec_fn=limit_memory)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines()[-1].startswith(f"{len(set(specs.split()) - FAILING)} spec")


FAILING = {"invalid", "big"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["concise", "json", "sarif"])
def test_a_reader_that_has_gone_changes_nothing(check: Check, tmp_path: Path, name: str) -> None:
    write(tmp_path, a=VANISHING)
    pipe = broken_pipe()
    done = check("--output-format", name, stdout=pipe)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
def test_a_full_disk_or_a_file_that_cannot_be_written_leaves_the_old_one(
    check: Check, tmp_path: Path
) -> None:
    write(tmp_path, a=VANISHING)
    check()
    old = tmp_path / "old.sarif"
    old.write_text("the old one\n")
    done = check("-o", "sarif=old.sarif", preexec_fn=limit_file_size)
    assert done.returncode == 2
    assert "gradprobe: error: cannot write old.sarif: " in done.stderr
    assert done.stdout.startswith("a.yaml:3:5: GP101")  # what was found is said all the same
    assert old.read_text() == "the old one\n"
    assert check("-o", "json=/dev/full").returncode == 2
    full = os.open("/dev/full", os.O_WRONLY)
    assert check(stdout=full).returncode == 2
    os.close(full)
    assert check("--write-baseline", "none/x.json").returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_under_the_cache_is_no_failure(check: Check, tmp_path: Path) -> None:
    write(tmp_path, a=VANISHING)
    done = check("--cache-dir", str(tmp_path / "c"), preexec_fn=limit_file_size)
    assert done.returncode == 1
    assert "warning: no cache: cannot write" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_runs_at_once_on_one_cache_lose_nothing(check: Check, tmp_path: Path) -> None:
    write(tmp_path, **{f"s{i}": [GOOD, VANISHING][i % 2] for i in range(6)})
    command = [*COMMAND, "--output-format", "json"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=-1, stderr=-1) for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert answers[0] == answers[1]
    assert {process.returncode for process in both} == {1}
    # A third finds everything, and says the same, with any number of workers.
    for arguments in ([], ["--jobs", "2", "--no-cache"]):
        again = subprocess.run([*command, *arguments], cwd=tmp_path, stdout=-1, check=False)
        assert again.stdout == answers[0][0]
    assert not list((tmp_path / ".gradprobe_cache").rglob(".gradprobe-*"))


@pytest.mark.slow
def test_a_run_that_finds_everything_in_the_cache_imports_no_torch_and_starts_no_process(
    tmp_path: Path,
) -> None:
    write(tmp_path, a=GOOD, b=VANISHING)
    program = (
        "import sys\nfrom gradprobe.cli.main import main\n"
        "try:\n    main(['check', '--output-format', 'json'])\n"
        "finally:\n    names = ('torch', 'multiprocessing.popen_spawn_posix')\n"
        "    print(*[name in sys.modules for name in names], file=sys.stderr)\n"
    )
    cold, warm = (
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)
        for _ in range(2)
    )
    assert cold.stdout == warm.stdout
    assert json.loads(warm.stdout)["exit_code"] == warm.returncode == 1
    # Torch is the workers' alone; and the second run has none.
    assert cold.stderr.split() == [b"False", b"True"]
    assert warm.stderr.split() == [b"False", b"False"]


def test_a_spec_that_is_no_spec_needs_no_torch(check: Check, tmp_path: Path) -> None:
    write(tmp_path, a=INVALID)
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    path = f"{trap}:{os.environ.get('PYTHONPATH', '')}"
    done = check("a.yaml", env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stderr) == (2, "")
    write(tmp_path, b=GOOD.replace("8", "9"))  # and the trap snaps
    done = check("b.yaml", env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 3
    assert "GP902 failed" in done.stdout
