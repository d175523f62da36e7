"""``gradprobe fix``: the smallest change that mends a network, as a diff or in the file."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.flatten import flattened
from gradprobe.cli.output import progress
from gradprobe.errors import ExitCode, InputError
from gradprobe.render.fix import render_fix, render_fix_json
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.tasks.fix import search as mending
from gradprobe.verdict.judge import versions


@flattened()
def fix(
    target: o.Target,
    *,
    write: Annotated[bool, typer.Option("--write", help="Change the file.")] = False,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Seeds at which it must be healthy.")
    ] = 3,
    stack: StackOptions,
    options: o.SpecProbe,
    output: o.FixOutput,
) -> int:
    """Find the smallest change of a spec that mends its gradient, and show the diff.

    Tried in this order: init, normalisation, activation, skip connections, a scaled or zero branch,
    then two of them together, then a skip with two others. Each is measured at several seeds.
    --write edits the file and keeps every other byte. Exit 0: healthy, or mended by --write; 1:
    there is something to mend.
    """
    if write and not mending.is_file(target):
        hint = f"gradprobe probe {target} --emit-spec -o net.yaml" if target != "-" else ""
        raise InputError(f"--write: {target} is no file that could be changed", hint=hint)
    spec, text = mending.read(target, stack)
    everything = output.everything
    with progress(f"mending {target}"):
        every = tuple(range(options.seed, options.seed + seeds))
        mended = mending.mend(spec, text, options, every, everything=everything)
    if write and mended.text:
        mended = mending.write(target, text, mended)
    if output.format == "json":
        output.emit(render_fix_json(mended, versions()))
    else:
        output.emit(render_fix(mended, output.style, everything=everything))
    done = mended.before.sound or mended.written
    return int(ExitCode.OK if done else ExitCode.FINDINGS)
