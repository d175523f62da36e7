"""A training script → the reports of its first steps, or of those that were asked for."""

from __future__ import annotations

import os
import re
import runpy
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gradprobe.errors import ExitCode, InputError, ModelError, first_line
from gradprobe.files import near_file
from gradprobe.measure.measurement import Step
from gradprobe.numbers import plural
from gradprobe.spec.options import JudgeOptions, ProbeOptions
from gradprobe.verdict.judge import judge
from gradprobe.verdict.report import Report
from gradprobe.worker.torchrun import rank_of_script

if TYPE_CHECKING:
    from gradprobe.measure.live.watcher import Seen, Watcher

_GONE = "another process of the job has ended: torchrun's last lines say which was the first"
_FIRST = "what follows the script is the script's own: gradprobe's options stand before it"
_COMPILED = r"Using `torch.compile\(module\)` when there are global hooks"

# What Python itself does not say of a script.
_UNSAID = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


@dataclass(frozen=True)
class Script:
    """A program to run: a file, or a module as ``python -m`` takes it; and its arguments."""

    target: str
    arguments: tuple[str, ...] = ()
    is_module: bool = False
    steps: tuple[int, ...] = (1,)  # to look at, of each optimizer, from 1 on
    optimizer: int | None = None  # the one to look at, in the order in which they were made
    inputs: str | None = None  # the file that gets the batch of the first step that is shown

    def __post_init__(self) -> None:
        if self.inputs is not None and not self.inputs.endswith(".safetensors"):
            raise InputError(f"--emit-inputs {self.inputs}: expected a .safetensors file")
        if not self.is_module and not os.path.isfile(self.target):
            near = near_file(Path(self.target), suffixes=(".py",))
            hint = near or "a file; of a module: gradprobe run -m package.module"
            raise InputError(f"no script '{self.target}'", hint=hint)
        if self.is_module and not _is_there(self.target.partition(".")[0]):
            raise InputError(f"no module '{self.target}'")


def _is_there(package: str) -> bool:
    """Whether a package, or a module outside of any, is found from here; none is imported."""
    try:
        here = PathFinder.find_spec(package, [os.getcwd()])
        return bool(package) and (here or find_spec(package)) is not None
    except ValueError:  # it is loaded, and says not from where
        return True


def steps_in(text: str) -> tuple[int, ...]:
    """The numbers of ``1,10,100``, ascending.

    Raises:
        InputError: they are none.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[1-9][0-9]{0,8}", word) for word in words):
        raise InputError(f"--steps: '{text}' is no list of steps", hint="like 1,10,100")
    return tuple(sorted(set(map(int, words))))


Finish = Callable[[Sequence[Step], Sequence[Report]], int]


def run_script(script: Script, finish: Finish, options: ProbeOptions) -> int:
    """Run ``script`` until the last of its steps, as Python itself would, and stop it there.

    What it writes to standard output goes to standard error.

    Args:
        finish: gets what was seen, and gives the exit code; it is called while the script still
            stands in its last step.

    Raises:
        InputError: there is no such script.
        ModelError: the script ended, or raised, before there was a step, or nothing of it could be
            measured.
    """
    from torch import compiler

    from gradprobe.measure.live.watcher import Watcher

    run = _Run(script, finish)
    watcher = Watcher(lambda number: number in script.steps, run.look, options)
    eager = compiler.set_stance("force_eager")  # what is compiled calls no hooks
    with eager, _aside() as run.back, watcher, run.stopping(watcher):
        try:
            _execute(script)
        except _Stop:
            pass
        except SystemExit as error:
            if error.code and not run.seen:
                hint = _FIRST if error.code == 2 and script.arguments else ""
                raise run.nothing(f"it exited with {error.code}", hint) from error
        except BaseException as error:
            if run.code is None:
                traceback.print_exception(_own(error))
                raise run.nothing(f"{type(error).__name__}: {first_line(error)}") from error
        code = run.end("it ended") if run.code is None else run.code
    if run.failed:
        raise run.failed
    return code


class _Stop(BaseException):
    """The last step was seen: the script ends here."""


class _Run:
    """What was seen of a script so far, and whether it is over."""

    def __init__(self, script: Script, finish: Finish) -> None:
        self.script, self.finish = script, finish
        self.folder = os.getcwd()  # a script may go elsewhere, and names of files count from here
        self.last = max(script.steps)
        self.seen: list[Step] = []
        self.reports: list[Report] = []
        self.reasons: list[str] = []
        self.unwritten: InputError | None = None  # why the batch is not in its file
        self.taken: list[int] = []  # how many steps, by optimizer
        self.code: int | None = None  # the exit code, once the last step was seen
        self.failed: Exception | None = None  # why what was seen could not be shown
        self.back: Callable[[], None] = _nothing  # gives standard output back
        self.watcher: Watcher | None = None

    def look(self, seen: Seen) -> None:
        """A step that was asked for."""
        if self.code is not None:
            self._leave()
        step = seen.step
        chosen = self.script.optimizer
        if chosen not in (None, step.optimizer):
            return
        if seen.measurement is None:
            self.reasons.append(seen.reason or "")
        else:
            if not self.seen:
                self._keep(seen)
            name = f"{self.script.target}, step {step.number}"
            if chosen is None and self.watcher and len(self.watcher.counts) > 1:
                name += f" of {step.kind} ({step.optimizer})"
            self.seen.append(step)
            self.reports.append(judge(seen.measurement, name, JudgeOptions()))
        counts = list(self.watcher.counts.values()) if self.watcher else []
        if min(counts if chosen is None else counts[chosen : chosen + 1]) >= self.last:
            self._stop()

    def _keep(self, seen: Seen) -> None:
        from gradprobe.model.call import save_call

        if self.script.inputs is not None and rank_of_script() == "0":
            try:
                with chdir(self.folder):
                    save_call(self.script.inputs, seen.args, seen.kwargs)
            except InputError as error:  # the report comes first
                self.unwritten = error

    @contextmanager
    def stopping(self, watcher: Watcher) -> Iterator[None]:
        """Stop as well where one optimizer goes on and another never steps."""
        from torch.optim.optimizer import (
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        def after(*step: Any) -> None:  # when the script has ended, its optimizers are gone
            self.taken = list(watcher.counts.values())

        def past(optimizer: Any, args: Any, kwargs: Any) -> None:
            if self.code is not None:
                self._leave()
            if self.script.optimizer is None and watcher.counts.get(optimizer, 0) > self.last:
                self._stop()

        self.watcher = watcher
        handles = register_optimizer_step_pre_hook(past), register_optimizer_step_post_hook(after)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def end(self, how: str = "") -> int:
        """What is to be shown is shown; gives the exit code. ``how`` the script ended, if it did.

        Raises:
            ModelError: nothing was seen.
        """
        if not self.seen:
            raise self.nothing("it ended")
        self.back()
        pairs = list(zip(self.seen, self.reports, strict=True))
        pairs.sort(key=lambda pair: (pair[0].optimizer, pair[0].number))
        self.seen, self.reports = [step for step, _ in pairs], [report for _, report in pairs]
        try:
            with chdir(self.folder):
                self.code = self.finish(self.seen, self.reports)
        except Exception as error:  # it is none of the script's
            self.failed, self.code = error, int(ExitCode.USAGE)
            return self.code
        for why in self._missed(how) if rank_of_script() == "0" else ():
            print(f"gradprobe: {self.script.target}: not all is shown: {why}", file=sys.stderr)
        if self.unwritten:
            print(self.unwritten, file=sys.stderr)
            self.code = max(self.code, int(ExitCode.USAGE))
        return self.code

    def nothing(self, what: str, hint: str = "") -> ModelError:
        """Why there is nothing to show."""
        where = self.script.target
        if (os.environ.get("WORLD_SIZE") or "1") != "1":
            where += f", rank {rank_of_script()}"
        if missed := self._missed(what):
            return ModelError(f"{where}: nothing was measured: {missed[0]}")
        seen = self.watcher.sight() if self.watcher else ""
        message = f"{where}: {what} before an optimizer of torch.optim took a step; seen: {seen}"
        return ModelError(message, hint=_GONE if " by peer" in message else hint)

    def _missed(self, what: str) -> list[str]:
        """Why some of what was asked for is not shown, where a step was taken at all."""
        counts, chosen = self.taken, self.script.optimizer
        if chosen is not None:
            if counts and chosen >= len(counts):
                return [f"--optimizer {chosen}: there are {len(counts)}, counted from 0"]
            counts = counts[chosen : chosen + 1]
        taken = max(counts, default=0)
        late = [step for step in self.script.steps if step > taken]
        missed = list(dict.fromkeys(self.reasons))
        if taken and late and what:
            missed.append(f"{what} after {plural(taken, 'step')}, before step {late[0]}")
        return missed

    def _stop(self) -> NoReturn:
        if self.seen:
            self.end()
        raise _Stop

    def _leave(self) -> NoReturn:
        """The script has caught what should have stopped it."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(int(ExitCode.FAILURE) if self.code is None else self.code)


def _nothing() -> None:
    pass


@contextmanager
def _aside() -> Iterator[Callable[[], None]]:
    """Standard output goes to standard error until what this yields is called."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:
        yield _nothing
        return

    def back() -> None:
        sys.stdout.flush()
        os.dup2(kept, 1)

    try:
        yield back
    finally:
        back()
        os.close(kept)


def _execute(script: Script) -> None:
    """As ``python SCRIPT`` or ``python -m MODULE`` does."""
    sys.argv = [script.target, *script.arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for category in _UNSAID:
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", _COMPILED)
        if script.is_module:
            sys.path[0] = os.getcwd()
            runpy.run_module(script.target, run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = str(Path(script.target).resolve().parent)
            runpy.run_path(script.target, run_name="__main__")


def _own(error: BaseException) -> BaseException:
    """The exception with the frames of the script alone."""
    trace = error.__traceback__
    while trace:
        file = trace.tb_frame.f_code.co_filename
        if "runpy" not in file and file != __file__:
            break
        trace = trace.tb_next
    return error.with_traceback(trace)
