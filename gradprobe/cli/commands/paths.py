"""``gradprobe paths``: the product over blocks, expanded."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe._version import __version__
from gradprobe.cli import options as o
from gradprobe.cli.output import emit, progress, style_for
from gradprobe.render.paths import render_paths, render_paths_json
from gradprobe.spec.sources.huggingface import ArchitectureOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks.take_apart import paths as expand
from gradprobe.tasks.targets import load_network


def paths(
    target: o.Target,
    max_paths: Annotated[
        int | None,
        typer.Option("--max-paths", min=0, help="Leave out paths through more branches."),
    ] = None,
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
    rows: o.Rows = None,
    layers: o.Layers = None,
    settings: o.Settings = None,
    max_parameters: o.MaxParameters = o.DEFAULT_LIMITS.parameters,
    max_memory: o.MaxMemory = o.DEFAULT_MEMORY,
    format: o.FormatOption = o.Format.TEXT,
    output: o.Output = None,
    all_rows: o.All = False,
    color: o.ColorOption = o.Color.AUTO,
) -> int:
    """Expand the product over residual blocks: how much gradient comes through which paths.

    Each path goes through each block by its skip or by its branch. Grouped by the number of
    branches on the way, the groups add up to the gradient at the first row, exactly.
    """
    stack = o.stack_options(depth, width, activation, init, norm, zero_init)
    options = o.probe_options(
        seed,
        batch_size,
        dtype,
        device,
        loss,
        data,
        max_parameters,
        max_memory,
        rows=rows,
    )
    architecture = ArchitectureOptions(layers, tuple(settings or ()))
    spec = load_network(target, TargetOptions(stack, architecture=architecture))
    with progress(f"expanding {target}"):
        found = expand(spec, options, max_paths)
    if format is o.Format.JSON:
        emit(render_paths_json(found, target, {"gradprobe": __version__}), output)
    else:
        emit(render_paths(found, target, style_for(color, output), everything=all_rows), output)
    return 0
