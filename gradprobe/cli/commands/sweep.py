"""``gradprobe sweep``: how far the gradient reaches as a stack deepens."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from gradprobe._version import __version__
from gradprobe.cli import options as o
from gradprobe.cli.output import emit, steps, style_for
from gradprobe.errors import InputError
from gradprobe.render.sweep import render_sweep, render_sweep_json
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.tasks import sweep as sweeping

_AXES = "Axes: one value, or several separated by commas"


def sweep(
    targets: o.Targets,
    depth: Annotated[
        str, typer.Option(help="Blocks.", rich_help_panel=_AXES)
    ] = "1,2,5,10,20,50,100",
    width: Annotated[str, typer.Option(help="Units per layer.", rich_help_panel=_AXES)] = "64",
    activation: Annotated[str, typer.Option(help="Activations.", rich_help_panel=_AXES)] = "tanh",
    init: Annotated[str | None, typer.Option(help="Weight inits.", rich_help_panel=_AXES)] = None,
    gain: Annotated[
        str | None,
        typer.Option(help="Weight std * sqrt(fan_in), zero bias.", rich_help_panel=_AXES),
    ] = None,
    norm: o.NormOption = o.Norm.NONE,
    zero_init: o.ZeroInit = False,
    seed: o.Seed = 0,
    batch_size: o.BatchSize = None,
    dtype: o.DtypeOption = o.Dtype.FLOAT32,
    device: o.Device = "cpu",
    loss: o.LossOption = None,
    theory: o.Theory = False,
    max_parameters: o.MaxParameters = o.DEFAULT_LIMITS.parameters,
    max_memory: o.MaxMemory = o.DEFAULT_MEMORY,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes.")] = 1,
    format: o.FormatOption = o.Format.TEXT,
    output: o.Output = None,
    color: o.ColorOption = o.Color.AUTO,
) -> int:
    """Probe each target at every depth and show how far the gradient reaches.

    One axis with several values gives a curve per target, two give a heat map: depth against gain
    draws the edge of chaos. In a spec, --depth sets the times of its longest repeat.
    """
    if "-" in targets:
        raise InputError("a sweep reads its targets several times: '-' cannot be one")
    axes = {"depth": _listed("depth", depth), "width": _listed("width", width)}
    axes["activation"] = _listed("activation", activation)
    axes |= {"init": _listed("init", init)} if init else {}
    axes |= {"gain": _listed("gain", gain)} if gain else {}
    if init and gain:
        raise InputError("--init and --gain both set the weights: give one")
    stack = replace(StackOptions(), norm=str(norm), zero_init=zero_init)
    settings = o.probe_options(
        seed, batch_size, dtype, device, loss, None, max_parameters, max_memory, theory=theory
    )
    todo, empty = sweeping.plan(targets, stack, axes, settings)
    points = tuple(steps("networks", sweeping.run(todo, jobs), len(todo)))
    done = replace(empty, points=points)
    if format is o.Format.JSON:
        emit(render_sweep_json(done, {"gradprobe": __version__}), output)
    else:
        emit(render_sweep(done, style_for(color, output)), output)
    return 0


def _listed(name: str, text: str) -> list[str]:
    """The values between the commas that stand outside of braces."""
    values, depth = [""], 0
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    values = [value.strip() for value in values]
    if not all(values):
        raise InputError(f"--{name}: an empty value in '{text}'")
    if len(set(values)) < len(values):
        raise InputError(f"--{name}: a value stands twice in '{text}'")
    return values
