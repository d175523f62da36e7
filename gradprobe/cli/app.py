"""The commands, in the order in which ``--help`` lists them; each is imported when it is needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from gradprobe._version import __version__
from gradprobe.cli.output import emit

# Each is a function of its name in a module of its name.
COMMANDS = ("check", "probe", "compare", "block", "paths", "sweep", "fix", "schema", "rules")


def app_for(arguments: Sequence[str] | None) -> typer.Typer:
    """The application with the command that the arguments name, or with all of them.

    A gate that finds everything in its cache is done in less time than it takes to import what the
    other commands need.
    """
    words = sys.argv[1:] if arguments is None else arguments
    named = [words[0]] if words and words[0] in COMMANDS else COMMANDS
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in named:
        app.command()(getattr(import_module(f"gradprobe.cli.commands.{name}"), name))
    app.callback()(gradprobe)
    return app


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
