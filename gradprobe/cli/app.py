"""The commands, in the order in which ``--help`` lists them; each is imported when it is needed."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from os.path import exists
from typing import Annotated

import typer
from typer.core import TyperGroup

from gradprobe._version import __version__
from gradprobe.cli.completion import mend_zsh
from gradprobe.cli.examples import epilog
from gradprobe.cli.output import emit
from gradprobe.cli.panels import PanelCommand, PanelGroup
from gradprobe.errors import InputError
from gradprobe.spec.network import is_script, is_target
from gradprobe.spec.sources.stack import STACKS
from gradprobe.worker.torchrun import torchrun

# Each is a function of its name in a module of its name.
COMMANDS = (
    *("check", "probe", "compare", "diff", "block", "paths", "sweep", "fix", "run", "merge"),
    *("schema", "rules"),
)

_SHARDED = ("probe", "run")  # may run in several processes


def app_for(arguments: Sequence[str] | None) -> TyperGroup:
    """The application with the command that the arguments name, or with all of them.

    A gate that finds everything in its cache is done in less time than it takes to import what the
    other commands need.
    """
    words = words_of(arguments)
    named = (words[0],) if words and words[0] in COMMANDS else COMMANDS
    _require_command(words)
    mend_zsh(words)
    return _app_of(named, _columns())


@cache
def _app_of(names: tuple[str, ...], columns: int) -> TyperGroup:
    """The application with these commands: typer takes longer to build one than to run it."""
    app = typer.Typer(
        cls=PanelGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "terminal_width": columns},
    )
    for name in names:
        module = import_module(f"gradprobe.cli.commands.{name}")
        settings = getattr(module, "CONTEXT", None)
        command = app.command(epilog=epilog(name), cls=PanelCommand, context_settings=settings)
        command(getattr(module, name))
    app.callback()(gradprobe)
    command = typer.main.get_command(app)  # with the options of the completion, unlike get_group
    assert isinstance(command, TyperGroup)
    return command


def _columns() -> int:
    """How wide the help is: click's own is never below 50, and wraps where a terminal is."""
    return max(20, min(shutil.get_terminal_size((80, 24)).columns, 100) - 2)


def words_of(arguments: Sequence[str] | None) -> list[str]:
    """The arguments; ``help COMMAND`` is ``COMMAND --help``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return [*words[1:], "--help"] if words[:1] == ["help"] else words


def _require_command(words: Sequence[str]) -> None:
    """Refuse a target where a command is to stand.

    Raises:
        InputError: the first word is one; the hint is what was meant.
    """
    word = words[0] if words else "-h"
    if torchrun() and word in COMMANDS and word not in _SHARDED:
        raise InputError(f"{word} under torchrun: it takes one process", hint="gradprobe probe")
    if word in COMMANDS or (word.startswith("-") and word != "-"):
        return
    target = is_target(word) or is_script(word) or word in (*STACKS, "-") or exists(word)
    if target:
        hint = f"gradprobe probe {shlex.join(words)}"
        raise InputError(f"'{word}' is a target, and a command is missing", hint=hint)


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"gradprobe {__version__}\n")
        raise typer.Exit


def gradprobe(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Does the gradient get from the loss back to the first layer? Ask before you train."""
