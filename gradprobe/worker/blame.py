"""Whatever a model's code raises → an error at the user's own line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gradprobe.errors import GradprobeError, InputError, ModelError
from gradprobe.worker.frames import frames_of, users_frame
from gradprobe.worker.process import Note


@contextmanager
def step(note: Note, stage: str) -> Iterator[None]:
    """Whatever is raised inside comes out as an error at the user's line."""
    note(stage)
    try:
        yield
    except KeyboardInterrupt:
        raise
    except GradprobeError as error:
        raise _placed(error) from error.__cause__
    except BaseException as error:
        raise blame(error, stage) from error


def blame(error: BaseException, stage: str) -> ModelError:
    what = f"{type(error).__name__}: {said(error)}".removesuffix(": ")
    if isinstance(error, SystemExit):
        what = f"sys.exit({error.code!r}) was called"
    frame = users_frame(frames_of(error))
    where = f" in {frame.function}" if frame and frame.function != "<module>" else ""
    message = f"{stage} failed{where}: {what}"
    if frame is None:
        return ModelError(message)
    return ModelError(message, place=frame.place, excerpt=frame.excerpt)


def _placed(error: GradprobeError) -> GradprobeError:
    """``error`` at the user's line that caused it, where there is one."""
    frame = users_frame(frames_of(error.__cause__)) if error.__cause__ else None
    if frame is None or error.place is not None or isinstance(error, InputError):
        return error
    return ModelError(error.message, place=frame.place, excerpt=frame.excerpt, hint=error.hint)


def said(error: BaseException) -> str:
    """The first line of what an exception says, whose own code may fail at that."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        return next(iter(text.strip().splitlines()), "")
    except Exception:
        return ""


def described(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"
