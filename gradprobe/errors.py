"""What goes wrong, and the exit code it ends in."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Controls, formats (zero-width, bidirectional, the byte-order mark), surrogates, line separators:
# what a terminal acts on instead of showing it.
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_IN_NO_XML = "\ufffe\uffff"


class ExitCode(IntEnum):
    """How a command ends; over several targets the highest of 3 > 2 > 1 > 0."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    FAILURE = 3
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file. Lines and columns count from 1, as editors do."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{printable(self.file)}:{self.line}:{self.column}"


class GradprobeError(Exception):
    """Base of every error that gradprobe raises on purpose.

    ``str(error)`` is what a terminal shows: ``file:line:col: error: message``, the line with a
    caret where there is one, and a hint.
    """

    exit_code = ExitCode.FAILURE

    def __init__(
        self,
        message: str,
        *,
        place: Place | None = None,
        excerpt: str = "",
        hint: str = "",
        details: Sequence[str] = (),  # a line each
    ) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.excerpt = excerpt
        self.hint = hint
        self.details = tuple(details)

    def __str__(self) -> str:
        lines = [f"{self.place or 'gradprobe'}: error: {_shortened(self.message)}"]
        if self.place is not None and self.excerpt:
            lines += caret_lines(self.excerpt, self.place)
        lines += [f"  {_shortened(detail)}" for detail in self.details]
        if self.hint:
            lines.append(f"hint: {_shortened(self.hint)}")
        return "\n".join(lines)


class InputError(GradprobeError):
    """The user's input is wrong: an option, a file, a spec (exit code 2)."""

    exit_code = ExitCode.USAGE


class ModelError(GradprobeError):
    """The model could not be built or run (exit code 3); ``row`` is where its row stands."""

    row: Place | None = None


def located(message: str, place: Place | None, lines: Sequence[str], hint: str = "") -> InputError:
    """An ``InputError`` that shows the line of ``place``, one of ``lines``."""
    excerpt = lines[place.line - 1] if place and place.line <= len(lines) else ""
    return InputError(message, place=place, excerpt=excerpt, hint=hint)


def imported(package: str, what: str, extra: str) -> Any:
    """The module of a package that an extra of gradprobe brings; ``what`` needs it.

    Raises:
        InputError: it is not installed; the hint says how it is.
    """
    try:
        return import_module(package)
    except ImportError as error:
        hint = f"pip install 'gradprobe[{extra}]', or pip install {package}"
        raise InputError(f"{what} needs {package}", hint=hint) from error


def in_own_words(names: Iterable[str]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: errors say ``max_memory`` where a command's say ``--max-memory``.

    Args:
        names: of the function's arguments.
    """
    options = {f"--{name.replace('_', '-')}": name for name in names}

    def renamed(text: str) -> str:
        option = r"(?<![\w-])--[a-z][a-z-]*"
        return re.sub(option, lambda match: options.get(match[0], match[0]), text)

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def speaking(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except GradprobeError as error:
                error.message, error.hint = renamed(error.message), renamed(error.hint)
                error.args = (error.message,)
                raise

        return speaking

    return decorated


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its name where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine had no more of it, by what Python and torch's allocators say."""
    return isinstance(error, MemoryError) or any("memory" in str(word) for word in error.args)


def printable(text: str) -> str:
    """``text`` with control, bidirectional and zero-width characters shown as escapes."""
    if text.isascii() and text.isprintable():
        return text
    hidden = {c for c in text if unicodedata.category(c) in _OBEYED or c in _IN_NO_XML}
    return "".join(c.encode("unicode_escape").decode() if c in hidden else c for c in text)


# What a CI runner obeys: GitHub's ``::command`` at the start of a line, and older ones anywhere.
_COMMAND = re.compile(r"^([^\S\n]*):(?=:)|#(?=#(?:\[|vso\[|teamcity\[))", re.MULTILINE)


def without_commands(text: str) -> str:
    """``text`` with an escape, which JSON reads too, where a CI runner would see a command."""
    return _COMMAND.sub(lambda match: f"{match[1] or ''}\\u{ord(match[0][-1]):04x}", text)


def suggestion(word: str, words: Iterable[str], least: float = 0.6) -> str:
    """``did you mean 'width'?``, or an empty string when nothing known is near.

    ``least``: how near, from 0 to 1; where the words are many, some are near by chance.
    """
    return suggested(word, {candidate: candidate for candidate in words}, least)


def suggested(word: str, shown: Mapping[str, str], least: float = 0.6) -> str:
    """What is suggested where the key is near: all that are equally so, ``'Conv1d' or …``."""
    others = {key: text for key, text in shown.items() if text != word}
    lowered, word = {key.lower(): text for key, text in others.items()}, word.lower()
    near = difflib.get_close_matches(word, lowered, n=3, cutoff=least)
    scores = [difflib.SequenceMatcher(None, key, word).ratio() for key in near]
    best = [f"'{lowered[k]}'" for k, score in zip(near, scores, strict=True) if score == scores[0]]
    return f"did you mean {' or '.join(sorted(best))}?" if best else ""


def caret_lines(line: str, place: Place) -> list[str]:
    """``line`` with its number, and a caret under the place's column; about 76 columns wide."""
    number = f"{place.line:>5} | "
    column = place.column - 1
    start = max(0, column - 48)
    part = line[start : start + 66]
    shown = "".join(c if unicodedata.category(c) not in _OBEYED else " " for c in part)
    before = shown[: column - start]
    indent = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in before)
    indent += max(0, column - start - len(before))
    return [f"{number}{shown.rstrip()}", " " * (len(number) + indent) + "^"]


def _shortened(text: str, most: int = 300) -> str:
    """Printable, and without the middle of what a megabyte-long name made long."""
    shown = printable(text[: 2 * most] + text[-most:] if len(text) > 3 * most else text)
    half = most // 2
    return shown if len(shown) <= most else f"{shown[:half]}…{shown[-half:]}"
