"""Where the text goes: the terminal's width and colour are found here, and nowhere else."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gradprobe.errors import ExitCode, InputError, imported, printable, without_commands
from gradprobe.files import write_atomically
from gradprobe.measure.progress import listening, meter
from gradprobe.render.canvas import Style
from gradprobe.render.figure import SUFFIXES
from gradprobe.spec.options import SEVERITIES, Shown, option
from gradprobe.verdict.report import Report, Severity
from gradprobe.worker.torchrun import torchrun

if TYPE_CHECKING:
    from gradprobe.cli.views import Views

Item = TypeVar("Item")

_MARKS = "█▏×→◄━⋮…∂"
_WIDTHS = (40, 240)
_PIPED_WIDTH = 80


FORMATS = ("text", "json")
COLORS = ("auto", "always", "never")


@dataclass(frozen=True, slots=True)
class Talk:
    """How much is said beside the result.

    Raises:
        InputError: the options contradict each other.
    """

    quiet: bool = option(False, Shown("Print nothing: the exit code says it.", ("-q", "--quiet")))
    verbose: bool = option(False, Shown("Say what is done, and how.", ("-v", "--verbose")))

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise InputError("--quiet and --verbose contradict each other")

    def tell(self, text: str) -> None:
        """Say on standard error what only ``--verbose`` wants to know."""
        if self.verbose:
            say(text)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What is printed, and where.

    Raises:
        InputError: one file is named twice, or the figure's is of no known kind.
    """

    format: str = option("text", Shown("Of the output.", choices=FORMATS))
    output: str | None = option(None, Shown("Write to FILE.", ("-o", "--output"), metavar="FILE"))
    html: str | None = option(None, Shown("Write a page to FILE too.", metavar="FILE"))
    svg: str | None = option(None, Shown("Write the text's picture to FILE too.", metavar="FILE"))
    figure: str | None = option(
        None,
        Shown("Draw the reach over rows to FILE too: .svg, .png or .pdf.", metavar="FILE"),
    )
    everything: bool = option(False, Shown("Show every row and finding.", ("--all",)))
    color: str = option("auto", Shown("When to colour.", choices=COLORS))
    fail_on: str | None = option("error", Shown("Least severity for exit 1.", choices=SEVERITIES))
    exit_zero: bool = option(False, Shown("Exit 0 whatever is found."))
    talk: Talk = field(default_factory=Talk)

    @property
    def style(self) -> Style:
        return replace(style_for(self.color, self.output), verbose=self.talk.verbose)

    def __post_init__(self) -> None:
        files = [file for file in (self.output, self.html, self.svg, self.figure) if file]
        if twice := [file for file in files if files.count(file) > 1]:
            several = "-o, --html, --svg and --figure"
            raise InputError(f"{twice[0]}: one file cannot hold two of {several}")
        if self.figure is not None:
            imported("matplotlib", "--figure", "figure")  # before anything is measured
            if Path(self.figure).suffix.lower() not in SUFFIXES:
                raise InputError(f"--figure {self.figure}: its name ends in .svg, .png or .pdf")

    def publish(self, views: Views) -> None:
        """Print a result in the format that was asked for, and write its page and its picture."""
        self.emit(views.shown(self.format, self.style))
        self.write_files(views)

    def write_files(self, views: Views) -> None:
        """Write the page, the picture and the figure of a result, where they are asked for."""
        if not speaks():
            return
        if self.html is not None:
            write_atomically(self.html, views.page())
        if self.svg is not None:
            from gradprobe.render.picture import render_picture

            width = self.style.width
            text = views.text(Style(width, color=True))
            write_atomically(self.svg, render_picture(text, width))
        if self.figure is not None and views.figure is not None:
            write_atomically(self.figure, views.figure(Path(self.figure).suffix.lower()))

    def emit(self, text: str) -> None:
        """Print what is no view of a result."""
        if self.output or not self.talk.quiet:
            emit(text, self.output)

    def exit_code(self, reports: Iterable[Report]) -> int:
        """0, or 1 if a finding that counts is at or above ``fail_on``."""
        if self.exit_zero or self.fail_on is None:
            return int(ExitCode.OK)
        severity = Severity[self.fail_on.upper()]
        failed = any(report.fails(severity) for report in reports)
        return int(ExitCode.FINDINGS if failed else ExitCode.OK)


def style_for(color: str, output: str | None) -> Style:
    """The style of standard output, or of a file where ``output`` names one.

    ``color`` is auto, always or never; for auto, ``NO_COLOR`` beats ``FORCE_COLOR`` beats whether
    standard output is a terminal.
    """
    terminal = output is None and sys.stdout.isatty()
    if color == "auto":
        if os.environ.get("NO_COLOR"):
            painted = False
        elif os.environ.get("FORCE_COLOR") and output is None:
            painted = True
        else:
            painted = terminal and os.environ.get("TERM") != "dumb"
    else:
        painted = color == "always"
    encoding = "utf-8" if output else (sys.stdout.encoding or "ascii")
    try:
        _MARKS.encode(encoding)
        plain = False
    except (UnicodeEncodeError, LookupError):
        plain = True
    return Style(_width(terminal), painted, plain)


def speaks() -> bool:
    """Whether this process is the one that does, of those that torchrun has started."""
    processes = torchrun()
    return processes is None or processes.rank == 0


def emit(text: str, output: str | None = None, commands: bool = False) -> None:
    """Write ``text`` to standard output, or to the file ``output``, whole or not at all.

    On standard output a CI runner finds no command in it, unless ``commands`` says that it is some.

    A reader that has closed the pipe is no error: the exit code stays what it was.
    """
    if output is not None:
        if speaks():
            write_atomically(output, text)
        return
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.stdout.write(text if commands else without_commands(text))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(text: str) -> None:
    """Say on standard error what does not change the result."""
    say(f"warning: {text}")


def say(text: str) -> None:
    """Say on standard error what is going on."""
    with suppress(OSError):
        shown = without_commands(printable(text))
        print(f"gradprobe: {shown}", file=sys.stderr, flush=True)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say on standard error what is going on, where that is a terminal, and take it back."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    words, what = meter(), printable(what)
    status = Console(stderr=True).status(Text(what))
    with status, listening(lambda step: status.update(Text(f"{what}: {words(step)}"))):
        yield


def steps(what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """``items``, with a progress bar on standard error where that is a terminal."""
    if not sys.stderr.isatty() or not total:
        yield from items
        return
    if total == 1:  # which tells how far it is itself, where it is measured here
        with progress(what):
            yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, what, total, console=Console(stderr=True), transient=True)


def _width(terminal: bool) -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns:  # main() has seen to it that it is a sensible number
        width = int(columns)
    elif terminal:
        width = shutil.get_terminal_size((_PIPED_WIDTH, 24)).columns
    else:
        width = _PIPED_WIDTH
    return min(_WIDTHS[1], max(_WIDTHS[0], width))
