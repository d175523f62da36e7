"""``gradprobe sweep``: how far the gradient reaches as a stack deepens."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.effects import Given
from gradprobe.cli.flatten import flattened
from gradprobe.cli.output import steps
from gradprobe.cli.views import of_sweep
from gradprobe.spec.options import RunOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks import sweep as sweeping


@flattened(follow=o.TARGET_ORDER)
def sweep(
    targets: o.Targets,
    *,
    depth: Annotated[str, typer.Option(help="Blocks.")] = "1,2,5,10,20,50,100",
    width: Annotated[str, typer.Option(help="Units per layer.")] = "64",
    activation: Annotated[str, typer.Option(help="Activations.")] = "tanh",
    init: Annotated[str | None, typer.Option(help="Weight inits.")] = None,
    gain: o.GainAxis = None,
    arg: o.ArgAxis = None,
    layers: o.LayersAxis = None,
    set: o.SetAxis = None,
    about: TargetOptions,
    options: o.SweepProbe,
    run: RunOptions,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes.")] = 1,
    output: o.SweepOutput,
    given: Given,
) -> int:
    """Probe targets at every depth: how far does the gradient reach?

    One axis with several values gives a curve per target, two give a heat map: depth against gain
    draws the edge of chaos. In a spec, --depth sets the times of its longest repeat; of a Python
    model --arg varies an argument, of a Hugging Face configuration --layers and --set do.
    """
    about, options = o.with_loss(about, options)
    stacks = {"depth": depth, "width": width, "activation": activation, "init": init, "gain": gain}
    axes = o.axes(stacks, arg or [], layers, set or [])
    todo, empty = sweeping.plan(targets, about, axes, options, run)
    o.require_swept(given, targets, todo)
    points = tuple(steps("networks", sweeping.run(todo, jobs), len(todo)))
    output.publish(of_sweep(replace(empty, points=points)))
    return 0
