"""``gradprobe sweep``: how far the gradient reaches as a stack deepens."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from gradprobe._version import __version__
from gradprobe.cli import options as o
from gradprobe.cli.flatten import Fields, flattened
from gradprobe.cli.output import steps
from gradprobe.errors import InputError
from gradprobe.render.sweep import render_sweep, render_sweep_json
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.tasks import sweep as sweeping


@flattened()
def sweep(
    targets: o.Targets,
    *,
    depth: Annotated[str, typer.Option(help="Blocks.")] = "1,2,5,10,20,50,100",
    width: Annotated[str, typer.Option(help="Units per layer.")] = "64",
    activation: Annotated[str, typer.Option(help="Activations.")] = "tanh",
    init: Annotated[str | None, typer.Option(help="Weight inits.")] = None,
    gain: Annotated[
        str | None,
        typer.Option(help="Weight std * sqrt(fan_in), zero bias."),
    ] = None,
    stack: Annotated[StackOptions, Fields("norm zero_init")],
    options: o.SweepProbe,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes.")] = 1,
    output: o.SweepOutput,
) -> int:
    """Probe each target at every depth and show how far the gradient reaches.

    One axis with several values gives a curve per target, two give a heat map: depth against gain
    draws the edge of chaos. In a spec, --depth sets the times of its longest repeat.
    """
    if "-" in targets:
        raise InputError("a sweep reads its targets several times: '-' cannot be one")
    texts = {"depth": depth, "width": width, "activation": activation, "init": init, "gain": gain}
    axes = {
        name: sweeping.listed(name, text or "")
        for name, text in texts.items()
        if text or name not in ("init", "gain")
    }
    if init and gain:
        raise InputError("--init and --gain both set the weights: give one")
    todo, empty = sweeping.plan(targets, stack, axes, options)
    points = tuple(steps("networks", sweeping.run(todo, jobs), len(todo)))
    done = replace(empty, points=points)
    if output.format == "json":
        output.emit(render_sweep_json(done, {"gradprobe": __version__}))
    else:
        output.emit(render_sweep(done, output.style))
    return 0
