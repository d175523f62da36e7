"""``gradprobe block``: one block, step by step."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.output import emit, progress, style_for
from gradprobe.render.block import block_steps
from gradprobe.tasks.take_apart import block as take_apart
from gradprobe.tasks.targets import load_spec


def block(
    target: o.Target,
    row: Annotated[
        str | None, typer.Option("--row", help="Which block; default the middle one.")
    ] = None,
    step: Annotated[bool, typer.Option("--step", help="Wait for a key between steps.")] = False,
    depth: o.Depth = 20,
    width: o.Width = 64,
    activation: o.Activation = "tanh",
    init: o.Init = None,
    norm: o.NormOption = o.Norm.NONE,
    zero_init: o.ZeroInit = False,
    seed: o.Seed = 0,
    batch_size: o.BatchSize = None,
    dtype: o.DtypeOption = o.Dtype.FLOAT64,
    device: o.Device = "cpu",
    loss: o.LossOption = None,
    data: o.Data = None,
    max_parameters: o.MaxParameters = o.DEFAULT_LIMITS.parameters,
    max_memory: o.MaxMemory = o.DEFAULT_MEMORY,
    output: o.Output = None,
    color: o.ColorOption = o.Color.AUTO,
) -> int:
    """Walk through one block: forward, backward, and its Jacobian taken apart.

    x splits; one copy goes through F, the skip carries the other, and they add up to y. On the way
    back the gradient splits the same way: what arrives at x is what the skip brings back plus what
    F brings back.
    """
    stack = o.stack_options(depth, width, activation, init, norm, zero_init)
    settings = o.probe_options(
        seed, batch_size, dtype, device, loss, data, max_parameters, max_memory
    )
    spec = load_spec(target, stack)
    with progress(f"probing {target}"):
        taken = take_apart(spec, settings, row)
    steps = block_steps(taken, target, style_for(color, output))
    if step and output is None and sys.stdin.isatty() and sys.stdout.isatty():
        for index, text in enumerate(steps):
            emit(text + "\n")
            if index < len(steps) - 1:
                input("Enter for the next step ")
    else:
        emit("\n".join(steps), output)
    return 0
