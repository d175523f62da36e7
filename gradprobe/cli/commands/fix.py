"""``gradprobe fix``: the smallest change that mends a network, as a diff or in the file."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.output import emit, progress, style_for
from gradprobe.errors import ExitCode, InputError
from gradprobe.render.fix import render_fix, render_fix_json
from gradprobe.tasks.fix import search as mending
from gradprobe.verdict.judge import versions


def fix(
    target: o.Target,
    write: Annotated[bool, typer.Option("--write", help="Change the file.")] = False,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Seeds at which it must be healthy.")
    ] = 3,
    depth: o.Depth = 20,
    width: o.Width = 64,
    activation: o.Activation = "tanh",
    init: o.Init = None,
    norm: o.NormOption = o.Norm.NONE,
    zero_init: o.ZeroInit = False,
    seed: o.Seed = 0,
    batch_size: o.BatchSize = None,
    dtype: o.DtypeOption = o.Dtype.FLOAT32,
    device: o.Device = "cpu",
    loss: o.LossOption = None,
    data: o.Data = None,
    max_parameters: o.MaxParameters = o.DEFAULT_LIMITS.parameters,
    max_memory: o.MaxMemory = o.DEFAULT_MEMORY,
    format: o.FormatOption = o.Format.TEXT,
    output: o.Output = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Try, and show, every change.", rich_help_panel="Output"),
    ] = False,
    color: o.ColorOption = o.Color.AUTO,
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
    stack = o.stack_options(depth, width, activation, init, norm, zero_init)
    settings = o.probe_options(
        seed, batch_size, dtype, device, loss, data, max_parameters, max_memory
    )
    spec, text = mending.read(target, stack)
    with progress(f"mending {target}"):
        every = tuple(range(seed, seed + seeds))
        found = mending.mend(spec, text, settings, every, everything=everything)
    if write and found.text:
        found = mending.write(target, text, found)
    if format is o.Format.JSON:
        emit(render_fix_json(found, versions()), output)
    else:
        emit(render_fix(found, style_for(color, output), everything=everything), output)
    done = found.before.sound or found.written
    return int(ExitCode.OK if done else ExitCode.FINDINGS)
