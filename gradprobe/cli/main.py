"""The outermost boundary: whatever happens inside ends in an exit code and at most a few lines."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1, 2, 3, or 130 when interrupted."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # of something that was not a report: help, for one
        code = 0
    except OSError as error:
        print(f"gradprobe: error: cannot write: {error.strerror or error}", file=sys.stderr)
        code = 2
    _leave(code)


def _run(arguments: Sequence[str] | None) -> int:
    if not os.environ.get("TERMINAL_WIDTH", "1").isdigit():
        del os.environ["TERMINAL_WIDTH"]  # typer reads it at import and takes nothing but a number
    from gradprobe.cli.app import app
    from gradprobe.errors import ExitCode, GradprobeError, printable

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on how it was called is not the user's
            result = app(args=arguments, prog_name="gradprobe", standalone_mode=False)
        return int(result or 0)
    except GradprobeError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    except (KeyboardInterrupt, OSError):
        raise
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's own usage errors
            error.show()
            return int(error.exit_code)
        if type(error).__name__ == "Abort":  # typer turns an interrupt inside a prompt into it
            return int(ExitCode.INTERRUPTED)
        if os.environ.get("GRADPROBE_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {printable(str(error)[:500])}"
        print(f"gradprobe: internal error: {what}", file=sys.stderr)
        print("hint: GRADPROBE_TRACEBACK=1 shows where; please report it", file=sys.stderr)
        return int(ExitCode.FAILURE)


def _leave(code: int) -> None:
    """Exit without the interpreter's own complaint about a pipe or a disk that is gone."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
