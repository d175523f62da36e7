"""``gradprobe block``: one block, step by step."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.effects import Given
from gradprobe.cli.flatten import flattened
from gradprobe.cli.output import emit, progress, warn
from gradprobe.cli.views import of_block
from gradprobe.render.block import block_steps
from gradprobe.spec.options import RunOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks.probe import block as take_apart


@flattened(follow=o.TARGET_ORDER)
def block(
    target: o.Target,
    *,
    row: Annotated[
        str | None,
        typer.Option("--row", help="Which block; default the middle one.", metavar="ROW"),
    ] = None,
    step: Annotated[bool, typer.Option("--step", help="Wait for a key between steps.")] = False,
    about: TargetOptions,
    options: o.PreciseProbe,
    run: RunOptions,
    output: o.TextOutput,
    given: Given,
) -> int:
    """Walk through one block: forward, backward, its Jacobian in parts.

    x splits; one copy goes through F, the skip carries the other, and they add up to y. On the way
    back the gradient splits the same way: what arrives at x is what the skip brings back plus what
    F brings back. In a Python or Hugging Face model the skip is found, and F(x) is y - x.
    """
    given.require_steps(output.format, output.output)
    spec, options = o.loaded(target, about, options, given)
    with progress(f"probing {target}"):
        taken = take_apart(spec, options, row, run)
    views = of_block(taken, target)
    here = sys.stdin.isatty() and sys.stdout.isatty()
    if step and not here:
        warn("--step waits at a terminal, and this is none")
    if not step or not here:
        output.publish(views)
        return 0
    steps = block_steps(taken, target, output.style)
    for index, text in enumerate(steps):
        emit(text + "\n")
        if index < len(steps) - 1:
            input("Enter for the next step ")
    output.write_files(views)
    return 0
