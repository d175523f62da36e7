"""Where the check's output goes: standard output, files, and what GitHub Actions shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from gradprobe.cli.output import COLORS, Talk, emit, style_for, warn
from gradprobe.errors import ExitCode, InputError, suggestion
from gradprobe.render.canvas import ENDLESS, MOST_FINDINGS, Style
from gradprobe.render.check.formats import CONCISE, FOR_PEOPLE, FORMATS
from gradprobe.render.check.github import render_github
from gradprobe.render.check.markdown import render_markdown
from gradprobe.render.check.text import summary
from gradprobe.spec.options import Shown, option
from gradprobe.tasks.check.result import CheckResult

_SUMMARY_LIMIT = 1 << 20  # bytes that GitHub takes of a step's summary


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """In which formats the result is printed, and where."""

    format: str = option(
        CONCISE,
        Shown(
            f"{', '.join(FORMATS)}.",
            ("--output-format", "--format"),
            choices=tuple(FORMATS),
            metavar="FORMAT",
        ),
    )
    outputs: tuple[str, ...] = option(
        (),
        Shown(
            "Write to FILE; may be given several times.",
            ("-o", "--output"),
            metavar="[FORMAT=]FILE",
            read=tuple,
            kind=list[str],
        ),
    )
    html: str | None = option(None, Shown("Write a page to FILE too.", metavar="FILE"))
    color: str = option("auto", Shown("When to colour.", choices=COLORS))
    everything: bool = option(False, Shown("Show all findings, not three.", ("--all",)))
    exit_zero: bool = option(False, Shown("Exit 0 whatever is found."))
    talk: Talk = field(default_factory=Talk)

    @property
    def files(self) -> dict[str, str]:
        """Which format goes to which file."""
        page = () if self.html is None else (f"html={self.html}",)
        return _destinations((*self.outputs, *page), self.format)

    def exit_code(self, result: CheckResult) -> int:
        """The result's own, or 0 where findings are to pass."""
        passed = self.exit_zero and result.exit_code is ExitCode.FINDINGS
        return int(ExitCode.OK if passed else result.exit_code)


def _destinations(outputs: Sequence[str], format: str) -> dict[str, str]:
    """Which format goes to which file: of each ``FILE`` or ``FORMAT=FILE``.

    Raises:
        InputError: an unknown format, or a file that is named twice.
    """
    files: dict[str, str] = {}
    for output in outputs:
        word, equals, file = output.partition("=")
        if not equals or word not in FORMATS:
            if equals and (hint := suggestion(word, FORMATS)):
                raise InputError(f"-o {output}: unknown format '{word}'", hint=hint)
            if output in FORMATS:
                raise InputError(f"-o {output}: the file is missing", hint=f"-o {output}=FILE")
            word, file = format, output
        if not file:
            raise InputError(f"-o {output}: the file is missing", hint=f"-o {word}=FILE")
        if file == "-":
            raise InputError("-o -: standard output takes --output-format", hint=f"not {output}")
        if file in files:
            raise InputError(f"-o {file}: named twice")
        files[file] = word
    return files


def publish(result: CheckResult, options: PublishOptions) -> None:
    """Write the result to standard output and to every file that the options name.

    A plain ``-o FILE`` takes the place of standard output. In GitHub Actions annotations and the
    step summary come by themselves.

    Raises:
        InputError: a file cannot be written; the others are.
    """
    files, word = options.files, options.format
    if not options.talk.quiet and not any(output in files for output in options.outputs):
        style = _style(options, None)
        text = _rendered(result, word, style, sys.stdout.isatty())
        emit(text, commands=word == "github")
    if os.environ.get("GITHUB_ACTIONS") == "true" and word != "github":
        _show_in_github(result, word in FOR_PEOPLE)
    failed = []
    for file, word in files.items():
        try:
            emit(_rendered(result, word, _style(options, file)), file)
        except InputError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _style(options: PublishOptions, file: str | None) -> Style:
    style = style_for(options.color, file)
    return style if options.everything else replace(style, most=MOST_FINDINGS)


def _rendered(result: CheckResult, format: str, style: Style, terminal: bool = False) -> str:
    """Only a terminal folds concise lines, and gets the gravest: a program that reads them wants
    a finding in each, and all."""
    if format == CONCISE and not terminal:
        style = replace(style, width=ENDLESS, most=ENDLESS)
    return FORMATS[format](result, style)


def _show_in_github(result: CheckResult, on_output: bool) -> None:
    """Annotations to standard output, or else to standard error, both of which the runner reads;
    the table to the step's summary."""
    if on_output:
        emit(render_github(result), commands=True)
    else:
        with suppress(OSError):
            print(render_github(result), end="", file=sys.stderr, flush=True)
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        return
    text = render_markdown(result)
    if len(text.encode()) > _SUMMARY_LIMIT:
        text = f"### gradprobe: {summary(result)}\n"
    try:
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        warn(f"cannot write the step summary: {error.strerror or error}")
