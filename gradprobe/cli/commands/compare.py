"""``gradprobe compare``: several targets, their heat bars side by side."""

from __future__ import annotations

from gradprobe.cli import options as o
from gradprobe.cli.effects import Given, kind_of
from gradprobe.cli.flatten import flattened
from gradprobe.cli.output import progress
from gradprobe.cli.views import of_comparison
from gradprobe.errors import InputError
from gradprobe.spec.options import RunOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.read_report import is_report, load
from gradprobe.tasks.targets import load_each
from gradprobe.verdict.report import Report


@flattened(follow=o.TARGET_ORDER)
def compare(
    targets: o.Compared,
    *,
    about: TargetOptions,
    options: o.JudgedProbe,
    run: RunOptions,
    output: o.CompareOutput,
    given: Given,
) -> int:
    """Show how far the gradient reaches in several networks.

    The same layer has the same weights in each built-in stack, so that the skip is the only
    difference. A target that ends in .json may be an earlier report of probe or check: before and
    after, row by row. It is for looking: it exits 0 unless --fail-on is given.
    """
    if targets.count("-") > 1:
        raise InputError("standard input ('-') can be read only once")
    about, options = o.with_loss(about, options)
    loaded = [load(t) if is_report(t) else load_each(t, about) for t in targets]
    kinds = ["report" if isinstance(source, list) else kind_of(source) for source in loaded]
    given.require_effect(targets, kinds)
    reports: list[Report] = []
    for source in loaded:
        if isinstance(source, list):
            reports += source
            continue
        with progress(f"probing {source.source}"):
            reports.append(probe_target(source, options, run=run))
    output.publish(of_comparison(reports, output.everything))
    return output.exit_code(reports)
