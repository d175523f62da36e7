"""Two git revisions → their trees, each in a worktree that does not outlast its use."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from subprocess import PIPE
from typing import NamedTuple

from gradprobe.errors import GradprobeError, InputError
from gradprobe.spec.network import CodeSpec
from gradprobe.spec.options import JudgeOptions, ProbeOptions, RunOptions
from gradprobe.spec.sources.table import Target
from gradprobe.tasks.probe import probe_target
from gradprobe.verdict.judge import judge
from gradprobe.verdict.report import Report
from gradprobe.worker.run import reply_of

WORKING_TREE = "the working tree"
_HOOKS_OF_GIT = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX")
_running: list[subprocess.Popen[str]] = []
_standing: dict[str, str] = {}  # the worktrees that are there, with the repository of each


class Revision(NamedTuple):
    """One side: what it is called, its tree, and the working directory's counterpart in it."""

    name: str
    tree: str
    folder: str

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Work from its folder; an error says at which revision it was."""
        try:
            with chdir(self.folder):
                yield
        except GradprobeError as error:
            error.message = f"at {self.name}: {error.message}"
            raise

    def probed(self, spec: Target, options: ProbeOptions, run: RunOptions) -> Report:
        """The report of a network of this revision, from inside of its folder.

        Raises:
            InputError: the code was imported from elsewhere, and would be the same at any revision.
            ModelError: as ``probe_target``.
        """
        if not isinstance(spec, CodeSpec):
            return probe_target(spec, options, run=run)
        reply = reply_of(spec, options, run, self.tree)
        if reply.origin is None or not reply.origin.files:
            hint = "--path DIR, relative: where its imports begin"
            raise InputError(f"{spec.target} was not imported from this revision", hint=hint)
        assert reply.measurement is not None
        return judge(reply.measurement, spec.source, JudgeOptions())


@contextmanager
def checked_out(revisions: str) -> Iterator[tuple[Revision, Revision]]:
    """Both sides of ``main..HEAD``; of ``main`` alone, the other is the working tree as it is.

    Raises:
        InputError: there is no git, no repository, or no such revision.
    """
    root, prefix = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "--show-prefix")
    old, dots, new = revisions.partition("..")
    if new.startswith("."):
        raise InputError(f"--rev {revisions}: two dots are expected", hint="--rev main..HEAD")
    with ExitStack() as stack:
        before = stack.enter_context(_worktree(root, prefix, old or "HEAD"))
        after = Revision(WORKING_TREE, root, os.getcwd())
        if dots:
            after = stack.enter_context(_worktree(root, prefix, new or "HEAD"))
        yield before, after


def remove_worktrees() -> None:
    """Take away the worktrees that are there, before the process ends at once."""
    for process in _running:  # not by its own methods, in whose lock the signal may have come
        with suppress(OSError):
            os.kill(process.pid, signal.SIGTERM)
            os.waitpid(process.pid, 0)
    for tree in list(_standing):
        _remove(tree)


@contextmanager
def _worktree(root: str, prefix: str, name: str) -> Iterator[Revision]:
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    own = os.path.join(os.path.realpath(tempfile.gettempdir()), f"gradprobe-{token_hex(8)}")
    tree = os.path.join(own, "tree")
    _standing[tree] = root
    try:
        os.mkdir(own, 0o700)
        _git("worktree", "add", "--quiet", "--detach", tree, commit, folder=root)
        folder = os.path.join(tree, prefix)
        if not os.path.isdir(folder):
            raise InputError(f"at {name} there is no folder {prefix}")
        yield Revision(name, tree, folder)
    finally:
        _remove(tree)


def _remove(tree: str) -> None:
    root = _standing.pop(tree, None)
    if root is not None:
        command = ["git", "worktree", "remove", "--force", tree]
        subprocess.run(command, cwd=root, env=_environment(), capture_output=True, check=False)
        shutil.rmtree(Path(tree).parent, ignore_errors=True)


def _git(*words: str, folder: str = ".") -> str:
    """What a git command prints; hooks of the repository are not run.

    Raises:
        InputError: it failed.
    """
    command = ["git", "-c", f"core.hooksPath={os.devnull}", *words]
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdout=PIPE,
            stderr=PIPE,
            text=True,
            errors="surrogateescape",  # a path may be any bytes
        )
    except FileNotFoundError as error:
        raise InputError("--rev needs git, which is not there") from error
    _running.append(process)
    with process:
        out, err = process.communicate()
    _running.remove(process)
    if process.returncode:
        lines = err.strip().splitlines()
        if not lines:
            raise InputError(f"--rev: no revision '{words[-1].removesuffix('^{commit}')}'")
        what = next((line for line in lines if line.startswith("fatal: ")), lines[-1])
        hint = lines[-1].strip() if lines[-1] != what else ""  # such as the command that mends it
        raise InputError(f"--rev: git says: {what.removeprefix('fatal: ')}", hint=hint)
    return out.strip()


def _environment() -> dict[str, str]:
    """Without what a hook of git's sets, which is about the repository that it runs in."""
    return {key: value for key, value in os.environ.items() if key not in _HOOKS_OF_GIT}
