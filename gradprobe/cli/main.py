"""The outermost boundary: whatever happens inside ends in an exit code and at most a few lines."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any, TextIO

INTERRUPTED = 130
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_LEFT_BEHIND = {
    "gradprobe.worker.process": "kill_all",
    "gradprobe.worker.pool": "kill_all",
    "gradprobe.files": "remove_unfinished",
    "gradprobe.tasks.revisions": "remove_worktrees",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1, 2, 3, or 130 when interrupted."""
    before = _catch_interrupts()
    _mend_streams()
    _mend_environment()
    try:
        code = _run_with_others(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        for signum, handler in before.items():
            ends = signal.getsignal(signum) is signal.SIG_IGN  # as the others do, under torchrun
            if handler is not None and not ends:  # None: one that Python did not set
                signal.signal(signum, handler)
    _leave(code)


def _run_with_others(arguments: Sequence[str] | None) -> int:
    """Under torchrun one process speaks and all end alike; a script speaks for itself."""
    from gradprobe.cli.app import words_of
    from gradprobe.worker.torchrun import torchrun

    processes = torchrun()
    if processes is None or words_of(arguments)[:1] == ["run"]:
        return _run(arguments)
    if processes.rank > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    return processes.end(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    from gradprobe.cli.app import app_for, words_of
    from gradprobe.errors import ExitCode, GradprobeError, InputError

    try:
        os.getcwd()
    except OSError:
        _tell(str(InputError("the working directory is not there any more")))
        return int(ExitCode.USAGE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on how it was called is not the user's
            app = app_for(arguments)
            result = app(args=words_of(arguments), prog_name="gradprobe", standalone_mode=False)
        sys.stdout.flush()
        return int(result or 0)
    except GradprobeError as error:
        _tell(str(error))
        return int(error.exit_code)
    except SystemExit:  # typer's answer to a reader of the help who has gone
        return int(ExitCode.OK)
    except BrokenPipeError:
        return int(ExitCode.OK)
    except OSError as error:
        scarce = error.errno in _SCARCE
        what = "the system has no more to give" if scarce else "cannot write"
        _tell(f"gradprobe: error: {what}: {error.strerror or error}")
        return int(ExitCode.FAILURE if scarce else ExitCode.USAGE)
    except Exception as error:
        return _unforeseen(error)


def _unforeseen(error: Exception) -> int:
    from gradprobe.errors import ExitCode, first_line, printable

    if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's own usage errors
        _show(error)
        return int(error.exit_code)
    if type(error).__name__ == "Abort":  # an interrupt, as typer passes it on
        return INTERRUPTED
    if os.environ.get("GRADPROBE_TRACEBACK"):
        raise error
    if isinstance(error, MemoryError):
        _tell("gradprobe: error: there is not enough memory")
    elif isinstance(error, ImportError) and not str(error.name).startswith("gradprobe"):
        _tell(f"gradprobe: error: a library cannot be loaded: {printable(first_line(error))}")
    else:
        what = f"{type(error).__name__}: {printable(str(error)[:500])}"
        _tell(f"gradprobe: internal error: {what}")
        _tell("hint: GRADPROBE_TRACEBACK=1 shows where; please report it")
    return int(ExitCode.FAILURE)


def _catch_interrupts() -> dict[int, Any]:
    """End at once with 130, also in the middle of an import that would swallow the exception.

    A termination ends as the interrupt does, with 143. Returned are the handlers before.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}

    def leave(signum: int, frame: FrameType | None) -> None:
        for name, clean_up in _LEFT_BEHIND.items():
            # Without the name while the module is still being imported: then nothing runs.
            if function := getattr(sys.modules.get(name), clean_up, None):
                function()
        os._exit(128 + signum)

    return {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}


def _mend_streams() -> None:
    """A stream that was closed before the start is ``None``: put a file that acts alike there."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull)  # noqa: SIM115 - a write fails, as it should
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _mend_environment() -> None:
    """typer and rich read these at import, and take nothing but a sensible number."""
    for name in ("TERMINAL_WIDTH", "COLUMNS"):
        value = os.environ.get(name, "")
        if value and not re.fullmatch("[1-9][0-9]{0,3}", value):
            del os.environ[name]


def _tell(text: str) -> None:
    from gradprobe.errors import without_commands

    try:
        print(without_commands(text), file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


# What typer puts around what is wrong: "Value error, 'x' is not one of …"
_WORDY = re.compile(
    r"^(invalid value for '[^']*'(?: / '[^']*')*: )"
    r"(?:Value error, |Input (should be [\w ]+)(?:, unable to parse .*)?)",
    re.IGNORECASE,
)


def _show(error: Any) -> None:
    """A usage error of typer's, in the form of every other; the help where nothing is asked."""
    from gradprobe.errors import InputError

    message, context = error.format_message(), getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        _tell(message)
        return
    message = _WORDY.sub(r"\1\2", message)
    hint = f"{context.command_path} --help" if context else ""
    if getattr(error, "option_name", None) == "--pretrained":
        from gradprobe.spec.sources.named import RANDOM

        message, hint = "No such option: --pretrained", RANDOM
    _tell(str(InputError(message[:1].lower() + message[1:].removesuffix("."), hint=hint)))


def _discard(stream: TextIO) -> None:
    """Send what is left in a stream's buffer to nowhere, so that no flush at exit complains."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _discard(stream)
    sys.exit(code)
