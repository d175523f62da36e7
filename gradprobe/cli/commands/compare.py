"""``gradprobe compare``: several targets, their heat bars side by side."""

from __future__ import annotations

from gradprobe.cli import options as o
from gradprobe.cli.output import emit, progress, style_for
from gradprobe.errors import InputError
from gradprobe.render.check.markdown import render_comparison as render_markdown
from gradprobe.render.compare import render_comparison
from gradprobe.render.json import render_comparison as render_json
from gradprobe.spec.network import ArchitectureSpec, NetworkSpec
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.read_report import is_report, load
from gradprobe.tasks.targets import load_network
from gradprobe.verdict.report import Report


def compare(
    targets: o.Targets,
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
    format: o.CompareFormatOption = o.CompareFormat.TEXT,
    output: o.Output = None,
    all_rows: o.All = False,
    color: o.ColorOption = o.Color.AUTO,
    fail_on: o.FailOnOrNot = None,
) -> int:
    """Show how far the gradient reaches in several networks, row against row.

    The same layer has the same weights in each built-in stack, so that the skip is the only
    difference. A target that ends in .json is an earlier report of probe or check: before and
    after, row by row. It is for looking: it exits 0 unless --fail-on is given.
    """
    if targets.count("-") > 1:
        raise InputError("standard input ('-') can be read only once")
    settings = o.probe_options(
        seed, batch_size, dtype, device, loss, data, max_parameters, max_memory
    )
    loaded: list[NetworkSpec | ArchitectureSpec | list[Report]] = []
    for target in targets:
        branch_zero = zero_init and target != "plain"
        stack = o.stack_options(depth, width, activation, init, norm, branch_zero)
        loaded.append(
            load(target) if is_report(target) else load_network(target, TargetOptions(stack))
        )
    reports: list[Report] = []
    for one in loaded:
        if isinstance(one, list):
            reports += one
            continue
        with progress(f"probing {one.source}"):
            reports.append(probe_target(one, settings))
    if format is o.CompareFormat.JSON:
        emit(render_json(reports), output)
    elif format is o.CompareFormat.MARKDOWN:
        emit(render_markdown(reports), output)
    else:
        emit(render_comparison(reports, style_for(color, output), everything=all_rows), output)
    return o.exit_code(reports, fail_on)
