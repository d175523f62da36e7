"""``gradprobe probe``: one target, one report."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.output import emit, progress, style_for
from gradprobe.errors import InputError
from gradprobe.render.json import render_report as render_json
from gradprobe.render.text import render_report as render_text
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, NetworkSpec, is_target
from gradprobe.spec.options import RunOptions
from gradprobe.spec.sources.huggingface import ArchitectureOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.spec.write import render_spec
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.targets import load_target
from gradprobe.verdict.report import Report
from gradprobe.verdict.seeds import repeated


def probe(
    target: o.AnyTarget,
    depth: o.Depth = 20,
    width: o.Width = 64,
    activation: o.Activation = "tanh",
    init: o.Init = None,
    norm: o.NormOption = o.Norm.NONE,
    zero_init: o.ZeroInit = False,
    emit_spec: Annotated[
        bool,
        typer.Option(
            "--emit-spec", help="Print the stack as YAML.", rich_help_panel="Built-in stacks"
        ),
    ] = False,
    seed: o.FirstSeed = None,
    seeds: o.SeveralSeeds = None,
    batch_size: o.BatchSize = None,
    dtype: o.AnyDtype = None,
    device: o.Device = "cpu",
    loss: o.AnyLoss = None,
    data: o.Data = None,
    level: o.LevelOption = o.Level.BLOCKS,
    by: o.ByOption = o.By.ROW,
    blocks: o.Blocks = False,
    arg: o.Arg = None,
    path: o.ImportPath = None,
    input: o.InputTensor = None,
    inputs: o.InputFunction = None,
    train_mode: o.TrainMode = None,
    timeout: o.CodeTimeout = 120.0,
    allow_code: o.AllowCode = False,
    in_process: o.InProcess = False,
    theory: o.Theory = False,
    rows: o.Rows = None,
    layers: o.Layers = None,
    settings: o.Settings = None,
    deep: o.Deep = False,
    max_parameters: o.MaxParameters = o.DEFAULT_LIMITS.parameters,
    max_memory: o.MaxMemory = o.DEFAULT_MEMORY,
    format: o.FormatOption = o.Format.TEXT,
    output: o.Output = None,
    all_rows: o.All = False,
    color: o.ColorOption = o.Color.AUTO,
    fail_on: o.FailOnOption = o.FailOn.ERROR,
    exit_zero: o.ExitZero = False,
) -> int:
    """Run one backward pass and show where the gradient goes.

    Each row shows its reach (the gradient that arrives there, 1 at the end of the trunk), the norm
    of that gradient, the RMS of its output, the output's exact zeros, and how far the output still
    tells the inputs apart (1: fully, 0: all inputs look alike). --blocks adds each block's Jacobian
    J: highway is tr(J)/n, branch the RMS gain of what is not the skip, gain that of the whole.
    --theory sets mean-field theory's factor beside that measured across each row. --deep judges
    by the probability that it trains, as check does. --seeds probes several initialisations,
    shows a typical one, and says whether its verdict is that of the others.

    package.module:name is a Python class, a function that builds a model, or a model. It is run in
    a process of its own and needs --input, --inputs or --data.
    """
    stack = o.stack_options(depth, width, activation, init, norm, zero_init)
    word = None if loss and is_target(loss) else loss
    told = o.probe_options(
        seed or 0,
        batch_size,
        dtype,
        device,
        word,
        data,
        max_parameters,
        max_memory,
        level,
        by,
        blocks,
        theory,
        rows,
        deep,
    )
    several = o.seeds_of(seeds, seed)
    code = replace(
        o.code_options(arg, path, input, inputs, train_mode, loss), allow_code=allow_code
    )
    architecture = ArchitectureOptions(layers, tuple(settings or ()))
    spec = load_target(target, TargetOptions(stack, code, architecture))
    if emit_spec:
        if isinstance(spec, CodeSpec):
            raise InputError(f"--emit-spec: {target} is code, which no spec describes")
        if not isinstance(spec, NetworkSpec):
            raise InputError("--emit-spec prints a spec, and this is no spec")
        emit(render_spec(spec), output)
        return 0
    run = RunOptions(timeout, in_process)

    def one(seed: int) -> Report:
        options = replace(told, seed=seed)
        with progress(f"probing {target}, seed {seed}" if several else f"probing {target}"):
            return probe_target(spec, options, run=run)

    if several is None:
        report = one(told.seed)
    else:
        ignores = () if isinstance(spec, ArchitectureSpec) else spec.check.ignore
        report = repeated(one, several, ignores)
    if format is o.Format.JSON:
        emit(render_json(report), output)
    else:
        emit(render_text(report, style_for(color, output), everything=all_rows), output)
    return o.exit_code([report], None if exit_zero else fail_on)
