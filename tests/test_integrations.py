"""The files that others' CI reads: the action, the hooks, the jobs, the completions."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers.check_specs import GOOD, VANISHING
from helpers.documents import FILES
from helpers.places import ROOT

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("GIT_", "GITHUB_", "PRE_COMMIT"))
} | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
SLOW = pytest.mark.slow
SCHEMAS = {
    "action.yml": "vendor.github-actions",
    ".github/workflows/gradprobe.yml": "vendor.github-workflows",
    ".github/workflows/shards.yml": "vendor.github-workflows",
    ".gitlab-ci.yml": "vendor.gitlab-ci",
}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """``gradprobe`` on the path, as this checkout has it."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "gradprobe").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gradprobe "$@"\n')
    (folder / "gradprobe").chmod(0o755)
    return folder


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_what_is_to_be_copied_validates_against_the_vendors_schema(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / Path(name).name
    text = FILES[name] if name in FILES else (ROOT / name).read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[name]]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    path.write_text(text.replace("runs-on", "runs-an").replace("script:", "scrpt:") + "x: 1\n")
    if name != ".gitlab-ci.yml":  # and it can tell
        assert subprocess.run([*command, str(path)], capture_output=True, check=False).returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "paths", "code"),
    [
        pytest.param("--exit-zero -o 'json=a b.json'", "good.yaml bad.yaml", 0, marks=SLOW),
        ("", "'*.yaml'", 1),
        ("", "$(touch hacked)", 2),
        ("--select GP4", "; touch hacked", 2),
        ("", "--exit-zero", 2),  # a path is a path
    ],
)
def test_the_action_runs_and_takes_its_inputs_for_data(
    tools: Path, tmp_path: Path, args: str, paths: str, code: int
) -> None:
    steps = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["runs"]["steps"]
    assert not any("${{" in step.get("run", "") for step in steps)
    work = tmp_path / "work"
    work.mkdir()
    (work / "good.yaml").write_text(GOOD)
    (work / "bad.yaml").write_text(VANISHING)
    environment = ENVIRONMENT | {"ARGS": args, "PATHS": paths}
    environment["PATH"] = f"{tools}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps[-1]["run"]],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert not (work / "hacked").exists()
    assert (work / "a b.json").exists() == ("a b" in args)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_scripts_are_what_the_command_prints(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gradprobe"],
        env=ENVIRONMENT | {"_GRADPROBE_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=False,
    )
    path = ROOT / "docs" / "completions" / f"gradprobe.{shell}"
    assert path.read_text(encoding="utf-8").split() == done.stdout.split()
    assert shell != "zsh" or done.stdout.startswith("#compdef gradprobe\n")
    assert shell != "zsh" or path.read_text(encoding="utf-8").startswith("#compdef gradprobe\n")


def test_bash_completes_commands_and_options(tools: Path) -> None:
    script = (
        f"source {ROOT}/docs/completions/gradprobe.bash; COMP_WORDS=(gradprobe check --sh);"
        "COMP_CWORD=2; _gradprobe_completion gradprobe; echo ${COMPREPLY[@]}"
    )
    environment = ENVIRONMENT | {"PATH": f"{tools}:{ENVIRONMENT['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert set(done.stdout.split()) == {"--show-config", "--shard"}


@pytest.mark.slow
def test_zsh_completes_from_fpath_at_each_tab(tools: Path, tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        assert not os.environ.get("GRADPROBE_ZSH"), "zsh is missing"
        pytest.skip("zsh is not installed")
    shutil.copy(ROOT / "docs" / "completions" / "gradprobe.zsh", tmp_path / "_gradprobe")
    setup = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump"
    process, terminal = pty.fork()
    if not process:
        os.environ |= ENVIRONMENT | {"PATH": f"{tools}:{ENVIRONMENT['PATH']}", "TERM": "dumb"}
        os.execvp("zsh", ["zsh", "-f", "-i"])
    try:
        os.write(terminal, f"PS1='> '; {setup}; echo ready-$((1+1))\n".encode())
        assert b"ready-2" in read_until(terminal, b"ready-2")
        os.write(terminal, b"gradprobe che\t--sho\t")
        typed = read_until(terminal, b"-config")
        assert b"check" in typed
        assert b"-config" in typed
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def read_until(terminal: int, end: bytes) -> bytes:
    """What a terminal shows until ``end`` comes, or 30 seconds have passed."""
    shown, deadline = b"", time.monotonic() + 30
    while end not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 1 << 16)
    return shown


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=ENVIRONMENT, stdout=-1, text=True, check=True
    )
    return done.stdout.strip()


def test_the_hooks_file_is_one(tmp_path: Path) -> None:
    command = [BIN / "pre-commit", "validate-manifest", ROOT / ".pre-commit-hooks.yaml"]
    assert subprocess.run(command, env=ENVIRONMENT, check=False).returncode == 0
    path = tmp_path / "config.yaml"
    path.write_text(FILES[".pre-commit-config.yaml"])
    command = [BIN / "pre-commit", "validate-config", path]
    assert subprocess.run(command, env=ENVIRONMENT, check=False).returncode == 0


@pytest.mark.parametrize("name", ["net.yaml", "gradprobe.toml", "src/model.py", "config.json"])
def test_the_hooks_run_where_a_file_changes_that_a_target_is_made_of(name: str) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert all(re.search(hook["files"], name) for hook in hooks)


def everything_but_gradprobe(folder: Path) -> Path:
    """The packages that the tests have, by links: none is installed twice."""
    folder.mkdir()
    for place in map(Path, reversed(sys.path)):
        for path in place.iterdir() if place.name == "site-packages" else ():
            if not path.name.startswith(("gradprobe", "_gradprobe", "__editable__")):
                (folder / path.name).unlink(missing_ok=True)
                (folder / path.name).symlink_to(path)
    return folder


@SLOW
@pytest.mark.long
@pytest.mark.parametrize("hook", ["gradprobe-system", "gradprobe"])
def test_pre_commit_is_red_on_a_bad_spec_and_green_after_the_fix(
    hook: str, tools: Path, tmp_path: Path
) -> None:
    """With the real pre-commit; the second hook gets an environment of its own.

    That finds what gradprobe needs where the tests have it; .ci/minimum installs it from the index.
    """
    source, work = tmp_path / "gradprobe", tmp_path / "work"
    for name in git(ROOT, "ls-files").splitlines():
        if name.startswith(
            ("gradprobe/", "pyproject", "hatch", "README", "LICENSE", ".pre-commit-")
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    work.mkdir()
    for folder in (source, work):
        git(folder, "init", "-q")
    git(source, "add", "-A")
    git(source, "commit", "-qm", "a release")
    constraints = ROOT / "constraints.txt"
    [torch] = re.findall(r"^torch==.*$", constraints.read_text(), re.MULTILINE)
    (work / ".pre-commit-config.yaml").write_text(
        f"repos:\n  - repo: {source}\n    rev: {git(source, 'rev-parse', 'HEAD')}\n    hooks:\n"
        f"      - id: {hook}\n"
        + (f"        additional_dependencies: ['{torch}']\n" if hook == "gradprobe" else "")
    )
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "PYTHONPATH"}
    environment |= {"PRE_COMMIT_HOME": str(tmp_path / "home"), "PIP_CONSTRAINT": str(constraints)}
    if hook == "gradprobe-system":
        environment |= {"PATH": f"{tools}:{environment['PATH']}", "PYTHONPATH": str(ROOT)}
    else:
        environment["PYTHONPATH"] = str(everything_but_gradprobe(tmp_path / "needed"))

    def commit(text: str) -> subprocess.CompletedProcess[str]:
        (work / "net.yaml").write_text(text)
        git(work, "add", "-A")
        command = [BIN / "pre-commit", "run"]
        return subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, check=False
        )

    red = commit(VANISHING)
    assert red.returncode == 1, red.stdout + red.stderr
    assert "net.yaml:3:5: GP101 vanishing" in red.stdout
    green = commit(GOOD)
    assert green.returncode == 0, green.stdout + green.stderr
    assert "Passed" in green.stdout
