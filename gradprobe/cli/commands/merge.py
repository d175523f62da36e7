"""``gradprobe merge``: the parts of one check, as one result."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe.cli import gate
from gradprobe.cli.flatten import Fields, flattened
from gradprobe.cli.reporting import PublishOptions, publish
from gradprobe.tasks.check.merge import merge as merged


@flattened()
def merge(
    files: Annotated[list[str], typer.Argument(help="The JSON of each part.")],
    *,
    publishing: PublishOptions,
    known: Annotated[gate.BaselineOptions, Fields("write_baseline")],
) -> int:
    """Join the parts of a check to one result, in every format.

    Each is what check --shard K/N --output-format json printed, all with the same gradprobe, files
    and options. The exit code is that of one check of everything; a part that is missing, or there
    twice, is an error: 2.
    """
    _ = publishing.files  # a wrong word is told before anything is read
    result = known.written(merged(files))
    publish(result, publishing)
    return publishing.exit_code(result)
