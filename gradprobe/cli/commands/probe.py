"""``gradprobe probe``: one target, one report."""

from __future__ import annotations

from dataclasses import replace

from gradprobe.cli import options as o
from gradprobe.cli.effects import Given
from gradprobe.cli.flatten import flattened
from gradprobe.cli.output import progress
from gradprobe.cli.views import of_report
from gradprobe.spec.options import RunOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.spec.write import render_target
from gradprobe.tasks.probe import probe_seeds


@flattened(follow=o.PROBE_ORDER)
def probe(
    target: o.Target,
    *,
    about: TargetOptions,
    emit_spec: o.EmitSpec = False,
    seed: o.FirstSeed = None,
    seeds: o.SeveralSeeds = None,
    options: o.FullProbe,
    run: RunOptions,
    output: o.ReportOutput,
    given: Given,
) -> int:
    """Run one backward pass and show where the gradient goes.

    Each row shows its reach (the gradient that arrives there, 1 at the end of the trunk), the norm
    of that gradient, the RMS of its output, the output's exact zeros, and how far the output still
    tells the inputs apart (1: fully, 0: all inputs look alike). --blocks adds each block's Jacobian
    J: highway is tr(J)/n, branch the RMS gain of what is not the skip, gain that of the whole.
    --attention adds how evenly attention looks (entropy, 1: at all keys alike), and how alike its
    tokens come out (the mean cosine of two).
    --precision adds which share of the gradient's entries float16, bfloat16 and float8 would lose,
    and the power of two that float16 needs the loss to be scaled by.
    --theory sets mean-field theory's factor beside that measured across each row. --deep judges
    by the probability that it trains, as check does. --overfit tries, with steps at several
    rates, whether the network learns one batch by heart. --stream makes one block at a time,
    which is the default where the network does not fit in --max-memory. --seeds probes several
    initialisations, shows a typical one, and says whether its verdict is that of the others.

    package.module:name is a Python class, a function that builds a model, or a model. It is run in
    a process of its own; its inputs are guessed without --input, --inputs or --data.
    """
    several = o.seeds_of(seeds, seed)
    spec, options = o.loaded(target, about, replace(options, seed=seed or 0), given)
    if emit_spec:
        given.require_emitted()
        output.emit(render_target(spec))
        return 0
    report = probe_seeds(
        spec, options, several, run, lambda which: progress(f"probing {target}{which}")
    )
    output.publish(of_report(report, output.everything))
    return output.exit_code([report])
