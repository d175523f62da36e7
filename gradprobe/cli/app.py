"""The commands, in the order in which ``--help`` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe._version import __version__
from gradprobe.cli.block import block
from gradprobe.cli.check import check
from gradprobe.cli.compare import compare
from gradprobe.cli.fix import fix
from gradprobe.cli.output import emit
from gradprobe.cli.paths import paths
from gradprobe.cli.probe import probe
from gradprobe.cli.rules import rules
from gradprobe.cli.schema import schema
from gradprobe.cli.sweep import sweep

COMMANDS = (check, probe, compare, block, paths, sweep, fix, schema, rules)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"gradprobe {__version__}\n")
        raise typer.Exit


@app.callback()
def gradprobe(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Does the gradient get from the loss back to the first layer? Ask before you train."""
