"""``gradprobe fix``: the smallest change that mends a network, as a diff or in the file."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.effects import Given, kind_of
from gradprobe.cli.flatten import flattened
from gradprobe.cli.output import progress
from gradprobe.errors import ExitCode
from gradprobe.render.fix import render_fix, render_fix_json
from gradprobe.spec.options import RunOptions
from gradprobe.spec.seeds import choose_seeds, seeds_in
from gradprobe.tasks.fix import search
from gradprobe.tasks.fix import target as mending
from gradprobe.verdict.judge import versions


@flattened(follow=o.TARGET_ORDER)
def fix(
    target: o.Target,
    *,
    write: Annotated[bool, typer.Option("--write", help="Change the file.")] = False,
    seeds: Annotated[
        str, typer.Option(metavar="N|LIST", help="Seeds at which it must be healthy.")
    ] = "3",
    about: o.Unweighted,
    options: o.MeasuredProbe,
    run: RunOptions,
    output: o.FixOutput,
    given: Given,
) -> int:
    """Find the smallest change that mends a network, and show the diff.

    Tried in this order: init, normalisation, activation, skip connections, a scaled or zero branch,
    then two of them together, then a skip with two others. Each is measured at several seeds.
    --write edits the file and keeps every other byte. Of a Python model or a Hugging Face
    configuration it says in code, or in the configuration's keys, what mends it, and edits nothing.
    Exit 0: healthy, or mended by --write; 1: there is something to mend.
    """
    about, options = o.with_loss(about, options)
    network = mending.read(target, about, write=write)
    given.require_effect([target], [kind_of(network.spec)])
    every = choose_seeds(seeds_in(seeds), options.seed or None).seeds
    with progress(f"mending {target}"):
        mended = mending.mend(network, options, every, run, output.everything)
    if write and mended.text:
        mended = search.write(target, network.text, mended)
    if output.format == "json":
        output.emit(render_fix_json(mended, versions()))
    else:
        output.emit(render_fix(mended, output.style, everything=output.everything))
    done = mended.before.sound or mended.written
    return int(ExitCode.OK if done else ExitCode.FINDINGS)
