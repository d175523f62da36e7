"""``gradprobe probe``: one target, one report."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.flatten import flattened
from gradprobe.cli.output import OutputOptions, progress
from gradprobe.errors import InputError
from gradprobe.render.json import render_report as render_json
from gradprobe.render.text import render_report as render_text
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, NetworkSpec, is_target
from gradprobe.spec.options import ProbeOptions, RunOptions
from gradprobe.spec.sources.huggingface import ArchitectureOptions
from gradprobe.spec.sources.python import CodeOptions
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.spec.write import render_spec
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.targets import load_target
from gradprobe.verdict.report import Report
from gradprobe.verdict.seeds import repeated


@flattened(
    follow={
        "timeout": "allow_code",
        "trusted_in_process": "theory rows layers set deep max_parameters max_memory",
    }
)
def probe(
    target: o.AnyTarget,
    *,
    stack: StackOptions,
    emit_spec: Annotated[
        bool, typer.Option("--emit-spec", help="Print the stack as YAML.")
    ] = False,
    seed: o.FirstSeed = None,
    seeds: o.SeveralSeeds = None,
    options: ProbeOptions,
    code: CodeOptions,
    run: RunOptions,
    architecture: ArchitectureOptions,
    output: OutputOptions,
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
    several = o.seeds_of(seeds, seed)
    own_loss = options.loss is not None and is_target(options.loss)
    code = replace(code, loss=options.loss)
    first = replace(options, seed=seed or 0, loss=None if own_loss else options.loss)
    spec = load_target(target, TargetOptions(stack, code, architecture))
    if emit_spec:
        if isinstance(spec, CodeSpec):
            raise InputError(f"--emit-spec: {target} is code, which no spec describes")
        if not isinstance(spec, NetworkSpec):
            raise InputError("--emit-spec prints a spec, and this is no spec")
        output.emit(render_spec(spec))
        return 0

    def probe_at(seed: int) -> Report:
        with progress(f"probing {target}, seed {seed}" if several else f"probing {target}"):
            return probe_target(spec, replace(first, seed=seed), run=run)

    if several is None:
        report = probe_at(first.seed)
    else:
        ignores = () if isinstance(spec, ArchitectureSpec) else spec.check.ignore
        report = repeated(probe_at, several, ignores)
    if output.format == "json":
        output.emit(render_json(report))
    else:
        output.emit(render_text(report, output.style, everything=output.everything))
    return output.exit_code([report])
